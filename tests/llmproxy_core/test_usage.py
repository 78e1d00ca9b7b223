"""Counts of several calls add up, and are believed no more than the least certain of them."""

import itertools

import pytest

from llmproxy_core import Usage, UsageSource

# from the most to the least trustworthy
SOURCES = [UsageSource.REPORTED, UsageSource.COUNTED, UsageSource.ESTIMATED]


def test_the_total_counts_input_and_output_and_their_parts_once() -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        cached_input_tokens=4,
        cache_write_tokens=3,
        reasoning_tokens=2,
        audio_input_tokens=6,
        audio_output_tokens=1,
    )

    assert usage.total_tokens == 15


def test_nothing_is_used_until_it_is_said() -> None:
    assert Usage() == Usage(0, 0, 0, 0, 0, UsageSource.REPORTED, 0, 0, None)


def test_every_count_is_added() -> None:
    one = Usage(1, 2, 3, 4, 5, audio_input_tokens=6, audio_output_tokens=7)
    other = Usage(10, 20, 30, 40, 50, audio_input_tokens=60, audio_output_tokens=70)

    assert one + other == Usage(11, 22, 33, 44, 55, audio_input_tokens=66, audio_output_tokens=77)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, None),
        ("flex", "flex", "flex"),
        ("flex", "priority", None),
        ("flex", None, None),
        (None, "flex", None),
    ],
)
def test_a_sum_has_the_service_tier_that_all_of_it_was_billed_in(
    one: str | None, other: str | None, both: str | None
) -> None:
    assert (Usage(service_tier=one) + Usage(service_tier=other)).service_tier == both


@pytest.mark.parametrize(("one", "other"), [*itertools.product(SOURCES, SOURCES)])
def test_a_sum_is_only_as_trustworthy_as_its_weaker_half(one: UsageSource, other: UsageSource) -> None:
    total = Usage(source=one) + Usage(source=other)

    assert SOURCES.index(total.source) == max(SOURCES.index(one), SOURCES.index(other))


def test_a_count_is_reported_unless_somebody_says_otherwise() -> None:
    assert Usage(1).source is UsageSource.REPORTED
