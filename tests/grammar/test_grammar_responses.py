"""Every rule for a stream of OpenAI's responses, by a stream that breaks it."""

import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.grammar.events import (
    Edit,
    Events,
    add,
    cut,
    drop,
    insert,
    lose,
    name,
    numbered,
    put,
    renumber,
    swap,
    twice,
    written,
)
from tests.grammar.right import (
    RESPONSE_USAGE,
    RESPONSES,
    RESPONSES_ERROR,
    RESPONSES_FAILED,
    item,
    of_item,
    response,
)

REASONING, MESSAGE, CALL, LAST = 2, 9, 20, 25
TEXT, ANNOTATION, REFUSAL = 11, 12, 16


WRONG: list[tuple[Edit, str]] = [
    # names
    (name(TEXT, None), "no event line"),
    (name(TEXT, "response.refusal.delta"), "its event line says"),
    (lose(TEXT, "type"), "type is absent"),
    (put(TEXT, "type", "response.output_text.more"), "no such event"),
    (insert(TEXT, {"type": "ping"}), "output_index is absent"),
    # the response
    (drop(0), "response.created is not the first event"),
    (twice(0), "a second time"),
    (swap(0, 1), "response.created is not the first event"),
    (drop(1), "an event before response.in_progress"),
    (cut(2), "no terminal event"),
    (swap(1, REASONING), "an item came before it"),
    (put(0, "response.object", "chat.completion"), "object is"),
    (put(0, "response.id", ""), "id is empty"),
    (put(0, "response.status", "completed"), "status is"),
    (lose(0, "response.created_at"), "response.created_at is absent"),
    (lose(0, "response.model"), "model is absent"),
    (lose(1, "response"), "response is absent"),
    (put(1, "response.id", "resp_2"), "id is"),
    (put(1, "response.output", [{}]), "output is"),
    # items
    (drop(REASONING), "item 0 is not open"),
    (twice(REASONING), "an item is open"),
    (drop(MESSAGE - 1), "an item is open"),
    (twice(MESSAGE - 1), "item 0 is not open"),
    (put(MESSAGE, "output_index", 2), "output_index is 2, not 1"),
    (put(MESSAGE, "item.id", "rs_1"), "is another item's"),
    (put(MESSAGE, "item.id", ""), "id is empty"),
    (lose(MESSAGE, "item"), "item is absent"),
    (put(MESSAGE, "item.role", "user"), "role is"),
    (put(MESSAGE, "item.status", "completed"), "status is"),
    (put(MESSAGE, "item.content", [{"type": "output_text", "text": "x"}]), "content is"),
    (put(MESSAGE, "item.type", "web_search_call"), 'type is "web_search_call"'),
    (put(REASONING, "item.summary", None), "summary is"),
    (put(CALL, "item.call_id", ""), "call_id is empty"),
    (lose(CALL, "item.name"), "name is absent"),
    (put(CALL, "item.arguments", "{}"), "arguments is"),
    (put(CALL + 4, "item.call_id", "call_2"), "call_id is"),
    (put(CALL + 4, "item.id", "fc_2"), "id is"),
    (put(CALL + 4, "item.name", "hear"), "name is"),
    (put(CALL + 4, "item.arguments", "{}"), "arguments is"),
    (put(CALL + 4, "item.status", "in_progress"), "status is"),
    (put(REASONING + 6, "item.id", "rs_2"), "id is"),
    (lose(REASONING + 6, "item.summary"), "summary is absent"),
    (put(REASONING + 6, "item.summary", []), "0 parts in summary; 1 were added"),
    (put(REASONING + 6, "item.summary.0.text", "h"), "text is"),
    (put(MESSAGE + 10, "item.content.0.text", "Hell"), "text is"),
    (put(MESSAGE + 10, "item.content.0.type", "input_text"), "type is"),
    (put(MESSAGE + 10, "item.content.0.annotations", []), "not the part that its own event told"),
    (put(MESSAGE + 10, "item.content.1.refusal", "nope"), "refusal is"),
    (lose(MESSAGE + 10, "item"), "item is absent"),
    # parts
    (drop(MESSAGE + 1), "no part 0 of content is open"),
    (twice(MESSAGE + 1), "a part is open"),
    (drop(MESSAGE + 5), "a part is open"),
    (twice(MESSAGE + 5), "no part 0 of content is open"),
    (lose(MESSAGE + 1, "part"), "part is absent"),
    (put(MESSAGE + 1, "part.text", "x"), "text is"),
    (put(MESSAGE + 1, "part.type", "summary_text"), 'a part "summary_text" in content of an item "message"'),
    (put(MESSAGE + 1, "content_index", 1), "the index of the part is 1, not 0"),
    (put(MESSAGE + 6, "content_index", 0), "the index of the part is 0, not 1"),
    (put(MESSAGE + 5, "part.text", "Hell"), "text is"),
    (put(MESSAGE + 5, "part.annotations", []), "0 annotations; 1 were added"),
    (put(MESSAGE + 5, "part.type", "refusal"), 'part 0 of content is "output_text"'),
    (drop(MESSAGE + 9), "a part is open"),
    (lose(MESSAGE, "item.type"), "type is absent"),
    (lose(MESSAGE + 1, "content_index"), "content_index is absent"),
    (lose(MESSAGE + 1, "part.type"), "type is absent"),
    (lose(MESSAGE + 5, "part.type"), "type is absent"),
    # texts
    (drop(TEXT), "text is"),
    (put(TEXT, "item_id", "msg_2"), "item_id is"),
    (put(TEXT, "output_index", 0), "item 0 is not open"),
    (put(TEXT, "output_index", 5), "item 5 is not open"),
    (put(TEXT, "content_index", 1), "no part 1 of content is open"),
    (lose(TEXT, "content_index"), "content_index is absent"),
    (lose(TEXT, "delta"), "delta is absent"),
    (put(TEXT, "type", "response.refusal.delta"), 'part 0 of content is "output_text"'),
    (swap(TEXT, TEXT - 1), "no part 0 of content is open"),
    (drop(TEXT + 2), "the part is done before its text"),
    (twice(TEXT + 2), "after the text was done"),
    (swap(TEXT, TEXT + 2), "after the text was done"),
    (put(TEXT + 2, "text", "Hell"), "text is"),
    (put(ANNOTATION, "annotation_index", 1), "annotation_index is 1, not 0"),
    (lose(ANNOTATION, "annotation"), "annotation is absent"),
    (drop(ANNOTATION), "1 annotations; 0 were added"),
    (drop(REFUSAL), "refusal is"),
    (put(REFUSAL + 1, "refusal", "yes"), "refusal is"),
    (drop(REASONING + 1), "no part 0 of summary is open"),
    (drop(REASONING + 2), "text is"),
    (put(REASONING + 2, "summary_index", 1), "no part 1 of summary is open"),
    (drop(REASONING + 4), "the part is done before its text"),
    (drop(REASONING + 5), "a part is open"),
    # calls
    (drop(CALL + 1), "arguments is"),
    (swap(CALL + 1, CALL + 2), "arguments is"),
    (put(CALL + 1, "item_id", "fc_2"), "item_id is"),
    (put(CALL + 1, "output_index", 1), "item 1 is not open"),
    (drop(CALL + 3), "the item is done before its arguments"),
    (twice(CALL + 3), "after the input was done"),
    (put(CALL + 3, "arguments", "{}"), "arguments is"),
    (insert(TEXT, of_item("function_call_arguments.delta", 1, "msg_1", delta="{")), 'about an item "message"'),
    (lose(CALL + 1, "delta"), "delta is absent"),
    # the end
    (drop(LAST), "no terminal event"),
    (twice(LAST), "an event after response.completed"),
    (add(LAST + 1, "[DONE]"), "an event after response.completed"),
    (drop(LAST - 1), "an item is open"),
    (lose(LAST, "response"), "response is absent"),
    (put(LAST, "response.status", "incomplete"), "status is"),
    (put(LAST, "response.id", "resp_2"), "id is"),
    (put(LAST, "response.error", {"code": "x"}), "error is"),
    (put(LAST, "response.incomplete_details", {"reason": "x"}), "incomplete_details is"),
    (lose(LAST, "response.incomplete_details"), "incomplete_details is nothing"),
    (lose(LAST, "response.output"), "output is absent"),
    (put(LAST, "response.output", []), "0 items in output; 3 were told"),
    (put(LAST, "response.output.0.encrypted_content", "b3RoZXI"), "not the item that its own event told"),
    (put(LAST, "response.output.1.content.0.text", "Hell"), "content is"),
    (put(LAST, "response.output.2.arguments", "{}"), "arguments is"),
    (put(LAST, "response.output.2.type", "custom_tool_call"), "type is"),
    (put(LAST, "response.usage", None), "usage is null"),
    (lose(LAST, "response.usage.input_tokens"), "input_tokens is absent"),
    (lose(LAST, "response.usage.total_tokens"), "total_tokens is absent"),
    (put(LAST, "response.usage.total_tokens", 15), "15 tokens in total, not 16"),
    (insert(LAST, RESPONSES_ERROR), "an error was told"),
]


@pytest.mark.parametrize(("edit", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_with_a_stream_of_a_response_is_said(edit: Edit, said: str) -> None:
    def renumbered(events: Events) -> None:
        renumber([event for event in events if isinstance(event.value, dict)])

    found = check_stream("openai-responses", written(RESPONSES, edit, renumbered))

    assert any(said in each for each in found), found
    assert not any("sequence_number" in each for each in found)


@pytest.mark.parametrize("edit", [drop(TEXT), twice(TEXT), swap(TEXT, TEXT + 1), put(TEXT, "sequence_number", None)])
def test_the_events_are_numbered_without_a_gap(edit: Edit) -> None:
    found = check_stream("openai-responses", written(RESPONSES, edit))

    assert any("sequence_number is" in each for each in found), found


def test_a_right_stream_of_a_response_has_nothing_wrong() -> None:
    assert check_stream("openai-responses", written(RESPONSES)) == []
    assert check_stream("openai-responses", written(RESPONSES).replace(b"\n\n", b"\n\n: keep-alive\n\n")) == []
    assert check_stream("openai-responses", written(RESPONSES).replace(b"\n", b"\r\n")) == []


@pytest.mark.parametrize(("text", "is_right"), [("{}", True), ("", False), ("{", False), ("[]", False)])
def test_the_arguments_of_a_completed_call_are_an_object(text: str, is_right: bool) -> None:
    edits = [
        put(CALL + 1, "delta", text),
        put(CALL + 2, "delta", ""),
        put(CALL + 3, "arguments", text),
        put(CALL + 4, "item.arguments", text),
        put(LAST, "response.output.2.arguments", text),
    ]

    found = check_stream("openai-responses", written(RESPONSES, *edits))

    assert (found == []) == is_right, found
    cut_short = [
        put(CALL + 4, "item.status", "incomplete"),
        put(LAST, "response.output.2.status", "incomplete"),
        put(LAST, "type", "response.incomplete"),
        name(LAST, "response.incomplete"),
        put(LAST, "response.status", "incomplete"),
        put(LAST, "response.incomplete_details", {"reason": "max_output_tokens"}),
    ]
    assert check_stream("openai-responses", written(RESPONSES, *edits, *cut_short)) == []


def test_an_incomplete_response_says_why() -> None:
    events = numbered(
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.in_progress", "response": response("in_progress")},
        {
            "type": "response.incomplete",
            "response": response(
                "incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=RESPONSE_USAGE
            ),
        },
    )

    assert check_stream("openai-responses", written(events)) == []
    for details in (None, {}, {"reason": ""}):
        assert check_stream("openai-responses", written(events, put(2, "response.incomplete_details", details))) != []


@pytest.mark.parametrize("is_announced", [True, False])
def test_reasoning_in_the_open_is_content_of_its_item(is_announced: bool) -> None:
    text = {"type": "reasoning_text", "text": "hm"}
    whole = {"id": "rs_1", "type": "reasoning", "summary": [], "content": [text]}
    between = [
        of_item("reasoning_text.delta", 0, "rs_1", content_index=0, delta="hm"),
        of_item("reasoning_text.done", 0, "rs_1", content_index=0, text="hm"),
    ]
    if is_announced:
        begun = of_item("content_part.added", 0, "rs_1", content_index=0, part={**text, "text": ""})
        between = [begun, *between, of_item("content_part.done", 0, "rs_1", content_index=0, part=text)]
    events = numbered(
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.in_progress", "response": response("in_progress")},
        item("added", 0, {"id": "rs_1", "type": "reasoning", "summary": []}),
        *between,
        item("done", 0, whole),
        {"type": "response.completed", "response": response("completed", output=[whole], usage=RESPONSE_USAGE)},
    )

    assert check_stream("openai-responses", written(events)) == []
    assert check_stream("openai-responses", written(events, put(3 + is_announced, "delta", "h"))) != []


def test_built_in_tools_are_left_to_the_provider() -> None:
    search = {"id": "ws_1", "type": "web_search_call", "status": "in_progress"}
    events = numbered(
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.in_progress", "response": response("in_progress")},
        item("added", 0, search),
        of_item("web_search_call.in_progress", 0, "ws_1"),
        of_item("web_search_call.completed", 0, "ws_1"),
        item("done", 0, {**search, "status": "completed"}),
        {
            "type": "response.completed",
            "response": response("completed", output=[{**search, "status": "completed"}], usage=RESPONSE_USAGE),
        },
    )

    assert check_stream("openai-responses", written(events), strict=False) == []
    assert len(check_stream("openai-responses", written(events))) == 3
    other = put(3, "type", "response.file_search_call.in_progress"), name(3, "response.file_search_call.in_progress")
    assert check_stream("openai-responses", written(events, *other), strict=False) == [
        'event 4 (response.file_search_call.in_progress): about an item "web_search_call"'
    ]


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, LAST + 1))
def test_a_response_may_fail_at_any_time(at: int) -> None:
    failing = cut(at), insert(at, RESPONSES_ERROR, RESPONSES_FAILED), renumber

    assert check_stream("openai-responses", written(RESPONSES, *failing), failed=True) == []


def test_a_response_that_was_never_begun_fails_with_an_error_alone() -> None:
    for error in (RESPONSES_ERROR, {"type": "error", "error": {"code": None, "message": "x"}}):
        assert check_stream("openai-responses", written(numbered(error)), failed=True) == []


FAILED: list[tuple[tuple[Edit, ...], str]] = [
    ((cut(9),), "no error was told"),
    ((), "response.completed though the stream failed"),
    ((cut(9), insert(9, RESPONSES_ERROR)), "no response.failed"),
    ((cut(9), insert(9, RESPONSES_FAILED)), "response.failed without the event error"),
    ((cut(9), insert(9, RESPONSES_FAILED, RESPONSES_ERROR)), "an event after response.failed"),
    ((insert(9, RESPONSES_ERROR),), "an event after the error"),
    ((cut(9), insert(9, {**RESPONSES_ERROR, "message": ""}, RESPONSES_FAILED)), "message is empty"),
    ((cut(9), insert(9, {"type": "error", "message": "x"}, RESPONSES_FAILED)), "code is absent"),
    ((cut(9), insert(9, {"type": "error", "error": "x"}, RESPONSES_FAILED)), "error is"),
    ((cut(9), insert(9, RESPONSES_ERROR, RESPONSES_FAILED), put(10, "response.status", "completed")), "status is"),
    ((cut(9), insert(9, RESPONSES_ERROR, RESPONSES_FAILED), put(10, "response.error", None)), "error is null"),
    ((cut(9), insert(9, RESPONSES_ERROR, RESPONSES_FAILED), put(10, "response.error.code", "")), "code is empty"),
    ((cut(9), insert(9, RESPONSES_ERROR, RESPONSES_FAILED), put(10, "response.error.message", "")), "message is empty"),
    ((cut(9), insert(9, RESPONSES_ERROR, RESPONSES_FAILED), put(10, "response.id", "resp_2")), "id is"),
]


@pytest.mark.parametrize(("edits", "said"), FAILED, ids=[said for _, said in FAILED])
def test_what_is_wrong_with_a_failure_of_a_response_is_said(edits: tuple[Edit, ...], said: str) -> None:
    found = check_stream("openai-responses", written(RESPONSES, *edits, renumber), failed=True)

    assert any(said in each for each in found), found
