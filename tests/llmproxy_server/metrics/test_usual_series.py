"""What is counted in one go of a call like most is what is counted of it step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from llmproxy_core import End, Money, Outcome, Usage
from llmproxy_core.attempt import Attempt
from llmproxy_core.errors import UpstreamError
from llmproxy_core.exchange import Exchange
from llmproxy_server.record import Ended
from tests.llmproxy_server.metrics.counting import COST, Call, Counting
from tests.llmproxy_server.metrics.scraping import MODEL, priced_at

URL = "https://llm.example/v1"


def changed(**values: Any) -> Callable[[Attempt], None]:
    """The outcome of an attempt with other *values*."""

    def change(attempt: Attempt) -> None:
        assert attempt.outcome is not None
        attempt.outcome = attrs.evolve(attempt.outcome, **values)

    return change


def failed(attempt: Attempt) -> None:
    attempt.error = UpstreamError("Sorry", upstream_status=500)


def set_to(**values: Any) -> Callable[[Attempt], None]:
    def change(attempt: Attempt) -> None:
        for name, value in values.items():
            setattr(attempt, name, value)

    return change


def nothing(_: Attempt) -> None: ...


CALLS: dict[str, tuple[Callable[[Attempt], None], dict[str, Any], bool]] = {
    "like most": (nothing, {}, True),
    "long": (nothing, {"seconds": 77.7}, True),
    "sent later": (set_to(sent_s=1000.02), {}, True),
    "tokens with kinds": (changed(usage=Usage(100, 50, 10, 5, 20, audio_input_tokens=3)), {}, True),
    "no price": (changed(cost=None), {}, True),
    "dear": (changed(cost=Money(7_123_456_789)), {}, True),
    "no output": (changed(usage=Usage(100, 0)), {}, False),
    "no usage": (changed(usage=None, cost=None), {}, False),
    "of another model": (changed(model="unheard-of"), {}, True),
    "read as a stream": (nothing, {"first_byte_s": 0.1}, False),
    "a stream": (nothing, {"stream": True, "first_byte_s": 0.1}, True),
    "a long stream": (nothing, {"stream": True, "first_byte_s": 3.3, "seconds": 77.7}, True),
    "a stream of one token": (changed(usage=Usage(100, 1)), {"stream": True, "first_byte_s": 0.1}, False),
    "a stream of which nothing came": (changed(first_byte_s=None), {"stream": True, "first_byte_s": 0.1}, False),
    "whole, to a stream": (nothing, {"stream": True}, False),
    "a stream broken off": (failed, {"stream": True, "first_byte_s": 0.1}, False),
    "broken off": (failed, {}, False),
    "no status": (set_to(status=None), {}, False),
    "never sent": (set_to(sent_s=None), {}, False),
    "no end": (set_to(ended_s=None), {}, False),
    "not over": (set_to(outcome=None), {}, False),
    "another status": (nothing, {"status": 404}, False),
    "another model counted": (nothing, {"sent": "else"}, True),
    "two attempts": (nothing, {"attempts": 2}, False),
    "none": (nothing, {"attempts": 0}, False),
    "more on the bill": (nothing, {"more": Usage(1000, 500)}, False),
}


def over(counting: Counting, change: Callable[[Attempt], None], how: dict[str, Any]) -> Ended:
    how = dict(how)
    status, more, attempts = how.pop("status", 200), how.pop("more", None), how.pop("attempts", 1)
    exchange: Exchange = counting.exchange(MODEL, stream=how.pop("stream", False))
    began_s = exchange.started_s
    counting.begin(exchange)
    counting.clock.now += 0.003
    answer = None
    for _ in range(attempts):
        attempt = counting.attempt(exchange, **how)
        change(attempt)
        answer = attempt.outcome
    counting.clock.now += 0.001
    outcome = attrs.evolve(answer or Outcome(End.COMPLETED), ended_s=counting.clock.now)
    if more is not None:
        outcome = attrs.evolve(outcome, usage=more, cost=COST + COST)
    return Ended(Call(began_s), exchange, outcome, status, None, begun=counting._begun.pop(exchange))


def step_by_step(counting: Counting, ended: Ended) -> bool:
    counting.calls.ended(ended)
    counting.calls.billed(ended, ended.outcome)
    return False


def in_one_go(counting: Counting, ended: Ended) -> bool:
    return counting.calls.counted_whole(ended) or step_by_step(counting, ended)


@pytest.mark.parametrize("newest", [False, True], ids=["released names", "newest names"])
@pytest.mark.parametrize("name", CALLS)
def test_the_same_is_counted(name: str, newest: bool) -> None:
    change, how, is_usual = CALLS[name]
    totals, ways = [], []
    for count in (step_by_step, in_one_go):
        counting = Counting({**priced_at(URL), "telemetry": {"newest_metric_names": newest}})
        for changing, manner in [(nothing, {}), (change, how), (change, how), (nothing, {})]:
            ways.append(count(counting, over(counting, changing, manner)))
        counted = counting.metering.snapshot().totals
        totals.append({family: of.cells for family, of in counted.items()})

    assert totals[0].keys() == totals[1].keys()
    for family, series in totals[0].items():
        assert series.keys() == totals[1][family].keys(), family
        for labels, cells in series.items():
            if not family.endswith("timestamp_seconds"):
                assert totals[1][family][labels] == pytest.approx(cells), (family, labels)
    assert ways[-2:] == ([False, False] if newest else [is_usual, True])
