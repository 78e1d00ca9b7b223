"""A provider's word to wait is kept; where it gives no time, a key is only put last."""

from __future__ import annotations

import pytest

from llmproxy_core.errors import UpstreamAuthError, UpstreamError
from llmproxy_core.groups.rest import AUTH_REST_S, FIRST_DOUBT_S, MOST_DOUBT_S, MOST_REST_S, Rest
from llmproxy_core.resilience.failure import Failure
from llmproxy_core.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rest(clock: FakeClock) -> Rest:
    return Rest("a", clock)


def limited(retry_after_s: float | None = None) -> UpstreamError:
    return UpstreamError("Too fast, alice", status=429, upstream_status=429, retry_after_s=retry_after_s)


def test_who_was_never_told_to_wait_neither_rests_nor_is_in_doubt(rest: Rest) -> None:
    assert (rest.left_s, rest.is_in_doubt, rest.has_been, rest.refusal()) == (0.0, False, False, None)


def test_it_rests_for_as_long_as_the_provider_says(rest: Rest, clock: FakeClock) -> None:
    rest.begin(Failure.RATE_LIMIT, limited(60.0))
    clock.advance(45.0)

    refusal = rest.refusal()
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, "llm_resting", 15.0)
    assert refusal.rests_for is Failure.RATE_LIMIT
    clock.advance(15.0)
    assert rest.refusal() is None


def test_a_provider_is_not_taken_at_its_word_for_more_than_a_day(rest: Rest) -> None:
    rest.begin(Failure.RATE_LIMIT, limited(1e9))

    assert rest.left_s == MOST_REST_S == 24 * 3600


def test_who_operates_it_may_end_its_rest_and_its_doubt(rest: Rest) -> None:
    rest.begin(Failure.RATE_LIMIT, limited(60.0))
    rest.end()

    assert (rest.left_s, rest.is_in_doubt, rest.has_been, rest.refusal()) == (0.0, False, False, None)


def test_a_refused_key_rests_for_a_while_where_nobody_says_how_long(rest: Rest) -> None:
    rest.begin(Failure.AUTH, UpstreamAuthError("The key was refused", upstream_status=401))

    refusal = rest.refusal()
    assert refusal is not None
    assert (refusal.code, refusal.message, rest.left_s) == ("upstream_auth", "The key was refused", AUTH_REST_S)


@pytest.mark.parametrize("later_s", [None, 0.0, 5.0])
def test_a_rest_is_not_cut_short_by_what_another_call_was_told(rest: Rest, later_s: float | None) -> None:
    rest.begin(Failure.RATE_LIMIT, limited(60.0))
    rest.begin(Failure.RATE_LIMIT, limited(later_s))
    rest.answered()  # nor by one that began before

    assert rest.left_s == 60.0


def test_what_the_provider_wrote_to_one_caller_is_not_told_another(rest: Rest) -> None:
    rest.begin(Failure.RATE_LIMIT, limited(60.0))

    refusal = rest.refusal()
    assert refusal is not None
    assert "alice" not in refusal.message


def test_each_call_is_told_by_an_error_of_its_own(rest: Rest) -> None:
    rest.begin(Failure.RATE_LIMIT, limited(60.0))

    assert rest.refusal() is not rest.refusal()


def test_doubt_grows_while_it_is_limited_again_and_again(rest: Rest, clock: FakeClock) -> None:
    found = []
    for _ in range(8):
        rest.begin(Failure.RATE_LIMIT, limited())
        before_s = clock()
        while rest.is_in_doubt:
            clock.advance(FIRST_DOUBT_S)
        found.append(clock() - before_s)

    assert found == [1, 2, 4, 8, 16, 32, MOST_DOUBT_S, MOST_DOUBT_S]
    assert rest.refusal() is None


def test_calls_that_are_limited_together_are_one_reason_to_doubt(rest: Rest, clock: FakeClock) -> None:
    for _ in range(50):
        rest.begin(Failure.RATE_LIMIT, limited())
    clock.advance(FIRST_DOUBT_S)

    assert not rest.is_in_doubt


def test_an_answer_ends_the_doubt(rest: Rest, clock: FakeClock) -> None:
    for _ in range(3):
        rest.begin(Failure.RATE_LIMIT, limited())
        clock.advance(MOST_DOUBT_S)
    rest.answered()
    rest.begin(Failure.RATE_LIMIT, limited())
    clock.advance(FIRST_DOUBT_S)

    assert not rest.is_in_doubt
