"""Tools that take a text, as tools that take an object: the text comes through whole, in whatever pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.wire import text_tool

TEXT = "*** Begin Patch\n-x = \"ü\\\"\n+x = '👋'\t\\n\n*** End Patch\n"


def _cut(text: str, sizes: Iterator[int]) -> list[str]:
    pieces, at = [], 0
    while at < len(text):
        size = next(sizes)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def test_a_name_tells_what_the_tool_takes() -> None:
    assert text_tool.clients_name(text_tool.sent_name("apply_patch")) == "apply_patch"
    assert text_tool.clients_name("apply_patch") is None
    assert json.loads(text_tool.SCHEMA)["required"] == ["text"]


@given(st.text(), st.booleans(), st.data())
def test_the_text_comes_through_in_any_pieces(text: str, is_ascii: bool, data: st.DataObject) -> None:
    arguments = json.dumps({"text": text}, ensure_ascii=is_ascii)
    sizes = iter(lambda: data.draw(st.integers(1, 5)), 0)
    pieces = text_tool.TextPieces()

    said = "".join(pieces.feed(piece) for piece in _cut(arguments, sizes))

    assert said == text_tool.read_text(arguments) == text


@pytest.mark.parametrize("spaces", ["", " ", "\n\t "])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_the_text_comes_through_byte_by_byte_however_it_is_spaced(spaces: str, is_ascii: bool) -> None:
    inside = json.dumps(TEXT, ensure_ascii=is_ascii)
    arguments = f'{spaces}{{{spaces}"text"{spaces}:{spaces}{inside}{spaces}}}{spaces}'
    pieces = text_tool.TextPieces()

    assert "".join(map(pieces.feed, arguments)) == TEXT


def test_the_text_is_told_as_it_comes() -> None:
    pieces = text_tool.TextPieces()

    assert [pieces.feed(piece) for piece in ('{"te', 'xt": "*** B', "egin\\", "nPa", 'tch"', "}")] == [
        "",
        "*** B",
        "egin",
        "\nPa",
        "tch",
        "",
    ]


@pytest.mark.parametrize("arguments", ["*** Begin Patch", '{"input": "x"}', '"text"', "[]", '{"text": 1}'])
def test_arguments_of_another_form_are_given_as_they_are(arguments: str) -> None:
    pieces = text_tool.TextPieces()

    assert "".join(map(pieces.feed, arguments)) == text_tool.read_text(arguments) == arguments


def test_a_text_that_is_no_json_is_given_as_it_is() -> None:
    pieces = text_tool.TextPieces()

    assert pieces.feed('{"text": "a\nb"}') == "a\nb"


def test_what_is_written_is_read() -> None:
    assert text_tool.read_text(text_tool.write_text(TEXT).decode()) == TEXT


@pytest.mark.parametrize(
    ("form", "is_free"),
    [(None, True), (b'{"type":"text"}', True), (b'{"type":"grammar","syntax":"lark"}', False), (b"7", False)],
)
def test_a_form_that_is_not_any_text_is_a_loss(form: bytes | None, is_free: bool) -> None:
    assert text_tool.is_free(form) is is_free
