"""The same seed gives the same sequence of decisions, and shares are shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from llmproxy_chaos import Faults
from llmproxy_chaos.amount import drawn
from llmproxy_chaos.dice import Dice, Plan
from llmproxy_chaos.faults import Cut, ErrorAnswer, Latency, Stall, TimedOut

CALLS = 2000
MIXED = Faults(latency=Latency(share=0.3, ms=(1, 1000)), error=ErrorAnswer(share=0.2, status=429), cut=Cut(share=0.1))


def plans(faults: Faults, seed: int = 0, calls: int = CALLS) -> list[Plan]:
    dice = Dice(seed)
    return [Plan.of(faults, dice.throw()) for _ in range(calls)]


def struck(found: Sequence[Plan], fault: str) -> list[int]:
    """The numbers of the calls that *fault* befalls."""
    return [
        number for number, it in enumerate(found) if any(strike.fault == fault for strike in (*it.before, *it.within))
    ]


def figures(found: Sequence[Plan]) -> list[list[tuple[Any, ...]]]:
    """All that was decided, in values that can be compared."""
    return [[(it.fault, it.after_chars, it.wait_s) for it in (*plan.before, *plan.within)] for plan in found]


def test_the_same_seed_gives_the_same_sequence() -> None:
    assert figures(plans(MIXED, seed=7)) == figures(plans(MIXED, seed=7))


def test_another_seed_gives_another_sequence() -> None:
    assert struck(plans(MIXED, seed=7), "error") != struck(plans(MIXED, seed=8), "error")


@pytest.mark.parametrize(("fault", "share"), [("latency", 0.3), ("error", 0.2), ("cut", 0.1)])
def test_a_fault_befalls_its_share_of_the_calls(fault: str, share: float) -> None:
    found = len(struck(plans(MIXED), fault)) / CALLS

    # Three standard deviations of 2000 draws are 0.03 at most; the seed is fixed, so that it never fails by chance.
    assert found == pytest.approx(share, abs=0.03)


def test_to_configure_another_kind_changes_no_decision_of_the_rest() -> None:
    alone = Faults(cut=Cut(share=0.1))

    assert struck(plans(alone), "cut") == struck(plans(MIXED), "cut")


def test_a_larger_share_befalls_the_same_calls_and_more() -> None:
    few, more = (set(struck(plans(Faults(cut=Cut(share=share))), "cut")) for share in (0.1, 0.2))

    assert few < more


@pytest.mark.parametrize(("share", "calls"), [(0, 0), (1, CALLS)])
def test_none_and_all_are_exact(share: float, calls: int) -> None:
    assert len(struck(plans(Faults(cut=Cut(share=share))), "cut")) == calls


def test_a_range_is_drawn_from_in_full_and_never_left() -> None:
    found = {it.before[0].wait_s for it in plans(Faults(latency=Latency(share=1, ms=(2, 4))))}

    assert found == {0.002, 0.003, 0.004}
    assert [drawn((3, 3), chance) for chance in (0.0, 0.999_999)] == [3, 3]


def test_what_comes_within_an_answer_is_in_the_order_of_its_places() -> None:
    faults = Faults(
        stall=Stall(share=1, ms=5, after_chars=80),
        cut=Cut(share=1, after_chars=90),
        timeout=TimedOut(share=1, clock="idle", after_chars=10),
    )

    (plan,) = plans(faults, calls=1)

    assert [(it.fault, it.after_chars) for it in plan.within] == [("timeout", 10), ("stall", 80), ("cut", 90)]
