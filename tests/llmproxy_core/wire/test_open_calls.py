"""A result finds the call that waits for it: by its id, by its tool's name, or as the first of all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.wire import OpenCalls


def waiting(*calls: tuple[str, str]) -> OpenCalls[int]:
    """Calls of an id and a name, each known by its number."""
    found = OpenCalls[int]()
    for number, (call_id, name) in enumerate(calls):
        found.add(call_id, name, number)
    return found


@pytest.mark.parametrize(
    ("call_id", "name", "number"),
    [("b", "f", 1), ("b", "another", 1), ("", "g", 1), ("", "f", 0), ("", None, 0), ("c", "f", None), ("", "h", None)],
)
def test_an_id_decides_then_a_name_then_the_order(call_id: str, name: str | None, number: int | None) -> None:
    calls = waiting(("a", "f"), ("b", "g"), ("d", "f"))

    assert calls.take(call_id, name) == number
    assert list(calls) == [each for each in range(3) if each != number]


def test_a_call_is_taken_once_however_it_is_asked_for() -> None:
    calls = waiting(("a", "f"), ("b", "f"))

    assert [calls.take("", "f"), calls.take("a", "f"), calls.take("", None), calls.take("", "f")] == [0, None, 1, None]
    assert not calls


def test_an_id_that_is_used_again_is_that_of_the_first_that_waits() -> None:
    calls = waiting(("a", "f"), ("a", "g"))

    assert [calls.take("a", None), calls.take("a", None), calls.take("a", None)] == [0, 1, None]


ASKED = st.tuples(st.booleans(), st.sampled_from(["", "a", "b", "c"]), st.sampled_from(["f", "g", None]))


@given(st.lists(ASKED))
def test_it_finds_what_a_search_through_all_finds(steps: list[tuple[bool, str, str | None]]) -> None:
    calls, plain = OpenCalls[int](), list[tuple[str, str, int]]()
    for number, (begins, call_id, name) in enumerate(steps):
        if begins:
            calls.add(call_id, name or "f", number)
            plain.append((call_id, name or "f", number))
            continue
        fits = [it for it in plain if (it[0] == call_id if call_id else name in (None, it[1]))]
        plain = [it for it in plain if it not in fits[:1]]

        assert calls.take(call_id, name) == (fits[0][2] if fits else None)
    assert (list(calls), bool(calls)) == ([number for _, _, number in plain], bool(plain))
