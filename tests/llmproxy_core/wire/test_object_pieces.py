"""Whether pieces are a whole object by now, as one would know who decoded all of them each time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.wire import ObjectPieces

SIGNS = st.sampled_from(["{", "}", '"', "\\", '\\"', "a", ":", "1", ",", " ", "\n", "[", "]", '"a":', "ü", "\ud800"])


def is_object(text: str) -> bool:
    """By decoding all of it; half a pair of surrogates is no JSON."""
    try:
        text.encode()
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([], [False]),
        (["", " ", "{", "}", " ", "x", "}"], [False, False, False, True, True, False, False]),
        (['{"a', '":"}', "\\", '"}', '"', "}"], [False, False, False, False, False, True]),
        (['{"a":{', '"b":{}', "}}"], [False, False, True]),
        (["{}{", "}"], [False, False]),
        (["}{"], [False]),
        (["{]}", "{}"], [False, False]),
        (["[1]", "{}"], [False, False]),
    ],
    ids=["none", "after its end", "braces in a text", "nested", "two", "the wrong way round", "no JSON", "a list"],
)
def test_it_is_whole_when_its_braces_are_closed_and_it_is_json(pieces: list[str], whole: list[bool]) -> None:
    found, answers = ObjectPieces(), list[bool]()
    for piece in pieces:
        found.add(piece)
        answers.append(found.is_whole())

    assert (answers or [found.is_whole()]) == whole
    assert found.text == "".join(pieces)


@given(st.lists(st.tuples(st.lists(SIGNS, max_size=4).map("".join), st.booleans())))
def test_any_pieces_asked_for_at_any_time(pieces: list[tuple[str, bool]]) -> None:
    found = ObjectPieces()
    for number, (piece, asks) in enumerate(pieces):
        found.add(piece)

        assert not asks or found.is_whole() == is_object("".join(text for text, _ in pieces[: number + 1]))
    assert found.is_whole() == is_object(found.text)


@given(st.dictionaries(st.text(), st.recursive(st.integers() | st.text(), st.lists)), st.booleans(), st.integers(1, 5))
def test_any_object_is_whole_at_its_end_and_not_before(value: dict[str, object], is_ascii: bool, size: int) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    found = ObjectPieces()
    for start in range(0, len(text), size):
        assert not found.is_whole()
        found.add(text[start : start + size])

    assert found.is_whole() == is_object(text)
