"""Every rule for a stream of Anthropic's messages, by a stream that breaks it."""

import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.grammar.events import Edit, add, cut, drop, drop_all, insert, lose, name, put, swap, twice, written
from tests.grammar.right import MESSAGES, MESSAGES_ERROR, block, delta, stop

THINKING, REDACTED, TEXT, CALL, SECOND_CALL, DELTA, LAST = 2, 6, 8, 12, 17, 19, 20
SIGNATURE = 4


WRONG: list[tuple[Edit, str]] = [
    # names
    (name(TEXT, None), "no event line"),
    (name(TEXT, "content_block_stop"), "its event line says 'content_block_stop'"),
    (lose(TEXT, "type"), "type is absent"),
    (insert(TEXT, {"type": "message_pause"}), "no such event"),
    (add(LAST + 1, "[DONE]"), "an event after message_stop"),
    (add(LAST, "[DONE]"), "not JSON"),
    # the message
    (drop(0), "an event before message_start"),
    (twice(0), "message_start a second time"),
    (lose(0, "message"), "message is absent"),
    (put(0, "message.id", ""), "id is empty"),
    (put(0, "message.type", "completion"), "type is"),
    (put(0, "message.role", "user"), "role is"),
    (put(0, "message.model", ""), "model is empty"),
    (put(0, "message.content", [{"type": "text", "text": ""}]), "content is"),
    (put(0, "message.stop_reason", "end_turn"), "stop_reason is"),
    (lose(0, "message.stop_reason"), "stop_reason is nothing"),
    (lose(0, "message.stop_sequence"), "stop_sequence is nothing"),
    (lose(0, "message.usage"), "usage is absent"),
    (put(0, "message.usage.input_tokens", None), "input_tokens is null"),
    (lose(0, "message.usage.output_tokens"), "output_tokens is absent"),
    # blocks
    (drop(TEXT), "no block is open"),
    (twice(TEXT), "block 2 is open"),
    (drop(TEXT + 3), "block 2 is open"),
    (twice(TEXT + 3), "no block is open"),
    (drop(REDACTED + 1), "block 1 is open"),
    (drop(SECOND_CALL + 1), "block 4 is open"),
    (put(TEXT, "index", 3), "index is 3, not 2"),
    (put(TEXT + 1, "index", 1), "index is 1; open is 2"),
    (put(TEXT + 3, "index", 0), "index is 0; open is 2"),
    (lose(TEXT + 1, "index"), "index is absent"),
    (lose(TEXT, "content_block"), "content_block is absent"),
    (lose(TEXT + 1, "delta"), "delta is absent"),
    (swap(TEXT, TEXT + 1), "no block is open"),
    (swap(TEXT + 2, TEXT + 3), "no block is open"),
    (put(TEXT, "content_block.type", "image"), 'type is "image"'),
    (put(TEXT, "content_block.text", "He"), "text is"),
    (put(TEXT + 1, "delta.type", "thinking_delta"), "in a block"),
    (put(TEXT + 1, "delta.type", "input_json_delta"), "in a block"),
    (lose(TEXT + 1, "delta.type"), "type is absent"),
    (lose(TEXT + 1, "delta.text"), "text is absent"),
    (lose(TEXT + 2, "delta.citation"), "citation is absent"),
    (drop(TEXT + 1), "a text block that says nothing"),
    (put(THINKING, "content_block.thinking", "h"), "thinking is"),
    (lose(THINKING, "content_block.signature"), "signature is nothing"),
    (put(SIGNATURE, "delta.signature", ""), "signature is empty"),
    (twice(SIGNATURE), "signature_delta after the signature"),
    (swap(SIGNATURE, SIGNATURE - 1), "thinking_delta after the signature"),
    (lose(REDACTED, "content_block.data"), "data is absent"),
    (insert(REDACTED + 1, delta(1, "text_delta", text="x")), "in a block"),
    (lose(CALL, "content_block.id"), "id is absent"),
    (put(CALL, "content_block.name", ""), "name is empty"),
    (put(CALL, "content_block.input", {"city": "Köln"}), "input is"),
    (lose(CALL, "content_block.input"), "input is nothing"),
    (drop(CALL + 3), "the input of block 3"),
    (swap(CALL + 2, CALL + 3), "the input of block 3"),
    (insert(SECOND_CALL + 1, delta(4, "input_json_delta", partial_json="[]")), "[] is not an object"),
    (insert(DELTA + 1, block(5, "text", text=""), delta(5, "text_delta", text="x"), stop(5)), "after message_delta"),
    (lose(TEXT, "content_block.type"), "type is absent"),
    (drop_all(THINKING + 1, SIGNATURE), "a thinking block that says nothing"),
    # the end
    (drop(DELTA), "message_stop without message_delta"),
    (twice(DELTA), "message_delta a second time"),
    (swap(DELTA, DELTA - 1), "block 4 is open"),
    (lose(DELTA, "delta"), "delta is absent"),
    (put(DELTA, "delta.stop_reason", None), "stop_reason is null"),
    (put(DELTA, "delta.stop_reason", "stop"), 'stop_reason is "stop"'),
    (put(DELTA, "delta.stop_reason", "end_turn"), "stop_reason is end_turn, and there were calls"),
    (put(DELTA, "delta.stop_reason", "stop_sequence"), "stop_sequence is null"),
    (put(DELTA, "delta.stop_sequence", "###"), "stop_sequence is"),
    (lose(DELTA, "delta.stop_sequence"), "stop_sequence is nothing"),
    (lose(DELTA, "usage"), "usage is absent"),
    (lose(DELTA, "usage.output_tokens"), "output_tokens is absent"),
    (lose(DELTA, "usage.input_tokens"), "input_tokens is absent"),
    (put(DELTA, "usage.input_tokens", 0), "no input token was ever told"),
    (drop(LAST), "no message_stop"),
    (twice(LAST), "an event after message_stop"),
    (insert(LAST + 1, {"type": "ping"}), "an event after message_stop"),
    (insert(LAST, MESSAGES_ERROR), "an error was told"),
]


@pytest.mark.parametrize(("edit", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_with_a_stream_of_messages_is_said(edit: Edit, said: str) -> None:
    found = check_stream("anthropic", written(MESSAGES, edit))

    assert any(said in each for each in found), found


def test_a_right_stream_of_messages_has_nothing_wrong() -> None:
    assert check_stream("anthropic", written(MESSAGES)) == []
    assert check_stream("anthropic", written(MESSAGES, insert(0, {"type": "ping"}))) == []
    assert check_stream("anthropic", written(MESSAGES).replace(b"\n\n", b"\n\n: keep-alive\n\n")) == []
    assert check_stream("anthropic", written(MESSAGES).replace(b"\n", b"\r\n")) == []


def test_a_refusal_may_have_no_block() -> None:
    refused = MESSAGES[0], put(1, "delta.stop_reason", "refusal")

    assert check_stream("anthropic", written([refused[0], *MESSAGES[DELTA:]], refused[1])) == []


def test_tool_use_without_a_call_is_wrong() -> None:
    assert check_stream("anthropic", written([MESSAGES[0], *MESSAGES[DELTA:]])) == [
        "event 2 (message_delta): stop_reason is tool_use, and there was no call"
    ]


def test_cached_input_is_input() -> None:
    cached = put(DELTA, "usage", {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 7})

    assert check_stream("anthropic", written(MESSAGES, cached)) == []


def test_input_that_the_limit_cut_short_need_not_parse() -> None:
    edits = drop(CALL + 3), put(DELTA - 1, "delta.stop_reason", "max_tokens")

    assert check_stream("anthropic", written(MESSAGES, *edits)) == []


def test_an_empty_stream_is_wrong() -> None:
    assert check_stream("anthropic", b"") == ["at the end: no message_start", "at the end: no message_stop"]


def test_built_in_tools_are_left_to_the_provider() -> None:
    server = insert(
        DELTA,
        block(5, "server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        delta(5, "input_json_delta", partial_json='{"query":"x"}'),
        stop(5),
        block(6, "web_search_tool_result", tool_use_id="srvtoolu_1", content=[]),
        stop(6),
    )

    assert check_stream("anthropic", written(MESSAGES, server), strict=False) == []
    assert len(check_stream("anthropic", written(MESSAGES, server))) == 2


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(LAST + 1))
def test_a_stream_of_messages_may_fail_at_any_time(at: int) -> None:
    assert check_stream("anthropic", written(MESSAGES, cut(at), insert(at, MESSAGES_ERROR)), failed=True) == []


FAILED: list[tuple[Edit, str]] = [
    (cut(9), "no error was told"),
    (insert(9, MESSAGES_ERROR), "an event after the error"),
    (swap(0, 0), "message_stop though the stream failed"),
    (insert(9, {"type": "error"}), "error is absent"),
    (insert(9, {"type": "error", "error": {"type": "api_error", "message": ""}}), "message is empty"),
    (insert(9, {"type": "error", "error": {"message": "x"}}), "type is absent"),
    (add(9, MESSAGES_ERROR), "no event line"),
]


@pytest.mark.parametrize(("edit", "said"), FAILED, ids=[said for _, said in FAILED])
def test_what_is_wrong_with_a_failure_of_messages_is_said(edit: Edit, said: str) -> None:
    found = check_stream("anthropic", written(MESSAGES, edit), failed=True)

    assert any(said in each for each in found), found
