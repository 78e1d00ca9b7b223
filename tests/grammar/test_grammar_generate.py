"""Every rule for Gemini's streams, as events and as an array, by a stream that breaks it."""

import json
from typing import Any

import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.grammar.events import Edit, Events, add, as_array, cut, drop, lose, name, put, swap, twice, written
from tests.grammar.right import GEMINI, GEMINI_ERROR, generated

TEXT, CALLS, LAST = 1, 2, 3

WRONG: list[tuple[Edit, str]] = [
    (drop(LAST), "candidate 0 has no finishReason"),
    (twice(LAST), 'a chunk after finishReason "STOP"'),
    (swap(CALLS, LAST), 'a chunk after finishReason "STOP"'),
    (add(-1, generated({"text": "late"})), "a chunk after finishReason"),
    (put(TEXT, "responseId", "r2"), "responseId is"),
    (lose(TEXT, "modelVersion"), "modelVersion is"),
    (lose(0, "responseId"), "responseId is absent"),
    (put(TEXT, "candidates", {}), "candidates is"),
    (lose(0, "candidates"), "neither candidates nor usageMetadata"),
    (put(TEXT, "candidates.0.index", "0"), "index is"),
    (put(TEXT, "candidates.0.index", 2), "the indexes of the candidates are [0, 2]"),
    (put(TEXT, "candidates.0.content", "x"), "content is"),
    (put(TEXT, "candidates.0.content.role", "assistant"), 'role is "assistant"'),
    (lose(TEXT, "candidates.0.content.role"), "role is nothing"),
    (put(TEXT, "candidates.0.content.parts", []), "neither parts nor a finishReason"),
    (put(TEXT, "candidates.0.content.parts.0", {}), "a part of no known kind"),
    (put(TEXT, "candidates.0.content.parts.0.functionCall", {"name": "f", "args": {}}), "a part of 2 kinds"),
    (put(TEXT, "candidates.0.content.parts.0.text", 1), "text is 1"),
    (put(0, "candidates.0.content.parts.0.thought", "yes"), "thought is"),
    (put(CALLS, "candidates.0.content.parts.0.thoughtSignature", ""), "thoughtSignature is empty"),
    (lose(CALLS, "candidates.0.content.parts.0.functionCall.name"), "name is absent"),
    (lose(CALLS, "candidates.0.content.parts.0.functionCall.args"), "args is absent"),
    (put(CALLS, "candidates.0.content.parts.0.functionCall.args", "{}"), "args is"),
    (put(CALLS, "candidates.0.content.parts.0.functionCall.id", ""), "id is empty"),
    (put(CALLS, "candidates.0.content.parts.0.functionCall.willContinue", True), "the call is not whole"),
    (put(CALLS, "candidates.0.content.parts.0.functionCall.partialArgs", []), "the call is not whole"),
    (put(LAST, "candidates.0.finishReason", "stop"), 'finishReason is "stop"'),
    (put(LAST, "candidates.0.finishReason", ""), "finishReason is empty"),
    (put(TEXT, "candidates.0.finishReason", "STOP"), "a chunk after finishReason"),
    (add(LAST + 1, generated({"text": "x"}, usageMetadata=GEMINI[LAST].value["usageMetadata"])), "no finishReason"),
    (lose(LAST, "usageMetadata"), "the last chunk has no usageMetadata"),
    (put(LAST, "usageMetadata", None), "the last chunk has no usageMetadata"),
    (lose(LAST, "usageMetadata.promptTokenCount"), "no promptTokenCount was told"),
    (put(LAST, "usageMetadata.promptTokenCount", 8), "promptTokenCount sinks from 9 to 8"),
    (put(LAST, "usageMetadata.totalTokenCount", 13), "totalTokenCount is 13, not the sum 16"),
    (put(LAST, "usageMetadata.candidatesTokenCount", "4"), "candidatesTokenCount is"),
    (put(LAST, "usageMetadata.totalTokenCount", "16"), "totalTokenCount is"),
    (put(LAST, "usageMetadata", 16), "usageMetadata is 16"),
    (put(TEXT, "candidates.0.content.parts", {}), "parts is {}, not a list"),
    (put(CALLS, "candidates.0.content.parts.0.functionCall", "look"), "functionCall is"),
    (put(TEXT, "promptFeedback", "x"), "promptFeedback is"),
    (put(TEXT, "promptFeedback", {"blockReason": 1}), "blockReason is 1"),
    (add(LAST, GEMINI_ERROR), "an error was told"),
]


def both(edit: Edit, *, failed: bool = False) -> list[list[str]]:
    """What is wrong with the events, and with the array."""
    return [
        check_stream("gemini", written(GEMINI, edit), failed=failed),
        check_stream("gemini-array", as_array(GEMINI, edit), failed=failed),
    ]


@pytest.mark.parametrize(("edit", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_with_a_stream_of_geminis_is_said(edit: Edit, said: str) -> None:
    for found in both(edit):
        assert any(said in each for each in found), found


def test_a_right_stream_of_geminis_has_nothing_wrong() -> None:
    assert check_stream("gemini", written(GEMINI)) == []
    assert check_stream("gemini", written(GEMINI).replace(b"\n", b"\r\n")) == []
    assert check_stream("gemini-array", as_array(GEMINI)) == []
    assert check_stream("gemini-array", as_array(GEMINI).replace(b"}, {", b"}\r\n,\r\n{")) == []


def test_geminis_clients_take_no_names_no_comments_and_no_done() -> None:
    assert check_stream("gemini", written(GEMINI, name(1, "message"))) == ["event 2: it has a name, 'message'"]
    assert check_stream("gemini", written(GEMINI, add(-1, "[DONE]"))) == ["event 5: its data: not JSON"]
    assert check_stream("gemini", b": ping\n\n" + written(GEMINI)) == [
        "after event 0: a comment, which clients of this protocol fail on"
    ]
    assert check_stream("gemini", b": ping\n" + written(GEMINI)) == [
        "event 1: a comment, which clients of this protocol fail on"
    ]


def test_a_blocked_prompt_needs_no_candidate() -> None:
    blocked = [
        {
            "promptFeedback": {"blockReason": "SAFETY"},
            "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
            "modelVersion": "m",
            "responseId": "r",
        }
    ]

    assert check_stream("gemini-array", json.dumps(blocked).encode()) == []
    blocked[0]["promptFeedback"] = {}
    assert check_stream("gemini-array", json.dumps(blocked).encode()) == [
        "at the end: no candidate was made, and no prompt blocked"
    ]


def test_the_usage_may_come_after_the_last_candidate() -> None:
    def apart(events: Events) -> None:
        usage = events[LAST].value.pop("usageMetadata")
        add(-1, {"usageMetadata": usage, "modelVersion": "m", "responseId": "r1"})(events)

    assert both(apart) == [[], []]


def test_an_array_is_closed_and_holds_objects() -> None:
    array = as_array(GEMINI)

    assert check_stream("gemini-array", array[:-1])[0] == "the body: not JSON"
    assert check_stream("gemini-array", b"{}")[0] == "the body is not an array"
    assert "element 4: the data is not an object" in check_stream("gemini-array", array[:-1] + b",7]")
    assert "no candidate was made, and no prompt blocked" in check_stream("gemini-array", b"[]")[0]


# -- calls in pieces, which only Gemini makes ------------------------------------------------------------------------


def pieces(*calls: dict[str, Any]) -> Events:
    """A stream of the pieces of calls."""
    events = [GEMINI[TEXT], *GEMINI[LAST:]]
    events[1:1] = [type(GEMINI[0])(generated({"functionCall": call})) for call in calls]
    return events


BEGUN = {"name": "look", "willContinue": True}
PIECE = {"partialArgs": [{"jsonPath": "$.city", "stringValue": "K", "willContinue": True}], "willContinue": True}


def test_a_call_in_pieces_has_a_beginning_and_an_end() -> None:
    for right in (pieces(BEGUN, PIECE, {}), pieces({"name": "look"}, BEGUN, {}, BEGUN, PIECE, {})):
        assert check_stream("gemini", written(right), strict=False) == []
    for wrong, said in (
        (pieces(BEGUN, PIECE), "a part within an unfinished call"),
        (pieces(PIECE, {}), "name is absent"),
        (pieces(BEGUN, BEGUN, {}), "a name within an unfinished call"),
    ):
        assert any(said in each for each in check_stream("gemini", written(wrong), strict=False))
    unfinished = pieces(BEGUN, PIECE)
    del unfinished[-1].value["candidates"][0]["content"]
    assert check_stream("gemini", written(unfinished), strict=False) == [
        "at the end: candidate 0 has an unfinished call"
    ]


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(LAST + 1))
def test_a_stream_of_geminis_may_fail_before_its_end(at: int) -> None:
    def fail(events: Events) -> None:
        cut(at)(events)
        add(-1, GEMINI_ERROR)(events)

    assert both(fail, failed=True) == [[], []]


FAILED: list[tuple[Edit, str]] = [
    (cut(2), "no error was told"),
    (add(2, GEMINI_ERROR), "after the error"),
    (add(-1, GEMINI_ERROR), "every candidate has a finishReason though the stream failed"),
    (add(2, {"error": "x"}), "error is"),
    (add(2, {"error": {**GEMINI_ERROR["error"], "code": "503"}}), "code is"),
    (add(2, {"error": {**GEMINI_ERROR["error"], "message": ""}}), "message is empty"),
    (add(2, {"error": {"code": 503, "message": "x"}}), "status is absent"),
]


@pytest.mark.parametrize(("edit", "said"), FAILED, ids=[said for _, said in FAILED])
def test_what_is_wrong_with_a_failure_of_geminis_is_said(edit: Edit, said: str) -> None:
    for found in both(edit, failed=True):
        assert any(said in each for each in found), found
