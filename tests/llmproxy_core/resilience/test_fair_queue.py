"""Whose turn it is, of all that wait for a place."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.resilience.fair_queue import FairQueue


def queue_of(*items: str) -> FairQueue[str]:
    """What waits, in the order in which it came; the first letter is the caller."""
    queue = FairQueue[str]()
    for item in items:
        queue.add(item[0], item)
    return queue


def drained(queue: FairQueue[str]) -> list[str]:
    return [queue.take() for _ in range(queue.size)]


def test_one_callers_calls_are_served_in_the_order_they_came() -> None:
    assert drained(queue_of("a1", "a2", "a3")) == ["a1", "a2", "a3"]


def test_callers_take_turns_however_many_wait_for_one_of_them() -> None:
    assert drained(queue_of("a1", "a2", "a3", "b1", "c1", "c2")) == ["b1", "c1", "a1", "c2", "a2", "a3"]


def test_a_caller_that_comes_late_is_served_before_who_was_served_last() -> None:
    queue = queue_of("a1", "b1", "a2", "b2", "a3", "b3")
    first = [queue.take() for _ in range(3)]

    queue.add("c", "c1")

    assert first == ["b1", "a1", "b2"]
    assert drained(queue) == ["a2", "c1", "b3", "a3"]


def test_who_is_alone_needs_nobody_elses_turn() -> None:
    queue = queue_of("a1", "a2")
    assert queue.take() == "a1"
    queue.add("b", "b1")

    assert drained(queue) == ["b1", "a2"]


def test_the_last_of_the_longest_line_is_the_one_to_go() -> None:
    queue = queue_of("a1", "b1", "b2", "b3", "a2", "c1")

    assert (queue.longest, queue.take_last()) == (3, "b3")
    assert {queue.take_last(), queue.take_last()} == {"a2", "b2"}
    assert (queue.longest, queue.size) == (1, 3)


def test_what_waits_no_more_is_no_ones_turn_and_may_be_dropped_again() -> None:
    queue = queue_of("a1", "b1", "b2")
    for _ in range(2):
        queue.discard("b", "b1")
        queue.discard("a", "a1")
        queue.discard("d", "d1")

    assert drained(queue) == ["b2"]
    assert (queue.size, queue.longest, queue.waiting("b")) == (0, 0, 0)
    assert not queue._lines
    assert not queue._by_length
    with pytest.raises(KeyError):
        queue.take()
    with pytest.raises(KeyError):
        queue.take_last()


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "drop", "last"]), st.sampled_from("abcd"))))
def test_nobody_is_passed_over_twice_and_the_index_is_right(steps: list[tuple[str, str]]) -> None:
    """Against lists: of each caller what waits, and how often each other one was served since it last was."""
    queue, lines = FairQueue[str](), {caller: list[str]() for caller in "abcd"}
    passed: dict[str, Counter[str]] = {caller: Counter() for caller in "abcd"}
    for number, (step, caller) in enumerate(steps):
        waiting = [it for it in lines if lines[it]]
        if step == "add":
            lines[caller].append(f"{caller}{number}")
            queue.add(caller, f"{caller}{number}")
        elif step == "drop" and lines[caller]:
            gone = lines[caller].pop(number % len(lines[caller]))
            queue.discard(caller, gone)
        elif step == "take" and waiting:
            item = queue.take()
            assert item == lines[item[0]].pop(0)
            passed[item[0]].clear()
            for other in waiting:
                if other != item[0]:
                    passed[other][item[0]] += 1
                    assert passed[other][item[0]] <= 2  # one turn, and that of who began the queue
        elif step == "last" and waiting:
            longest = max(map(len, lines.values()))
            item = queue.take_last()
            assert len(lines[item[0]]) == longest
            assert item == lines[item[0]].pop()
        for it, line in lines.items():
            assert queue.waiting(it) == len(line)
            if not line:
                passed[it].clear()
        assert queue.size == sum(map(len, lines.values()))
        assert queue.longest == max(map(len, lines.values()))
