"""Every rule for a stream of chat chunks, OpenAI's and Mistral's, by a stream that breaks it."""

import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.grammar.events import Edit, add, cut, drop, lose, name, plain, put, swap, twice, written
from tests.grammar.right import (
    CHAT,
    CHAT_ERROR,
    MISTRAL,
    MISTRAL_ERROR,
    arguments,
    call,
    choice,
    chunk,
)

LAST = len(CHAT) - 1
FIRST_CALL, SECOND_CALL, FINISH, USAGE = 3, 6, 8, 9

WRONG: list[tuple[Edit, str]] = [
    (drop(LAST), "no [DONE]"),
    (twice(LAST), "an event after [DONE]"),
    (add(-1, chunk(choice(content="x"))), "an event after [DONE]"),
    (add(2, "[1]"), "the data is not an object"),
    (add(2, "{"), "not JSON"),
    (add(2, " "), "an event without data"),
    (put(2, "created", "1"), "created is"),
    (name(2, "message"), "it has a name"),
    (put(2, "id", "chatcmpl-2"), "id is"),
    (put(2, "model", "n"), "model is"),
    (lose(0, "id"), "id is absent"),
    (lose(0, "created"), "created is absent"),
    (put(0, "model", ""), "model is empty"),
    (put(2, "object", "chat.completion"), "object is"),
    (lose(2, "choices"), "choices is absent"),
    (put(2, "choices", [7]), "choices[0] is not an object"),
    (put(2, "choices", []), "no choices and no usage"),
    (lose(2, "choices.0.index"), "index is absent"),
    (put(2, "choices.0.index", -1), "index is -1"),
    (put(2, "choices.0.index", 2), "the indexes of the choices are [0, 2]"),
    (lose(2, "choices.0.delta"), "delta is absent"),
    (lose(2, "choices.0.finish_reason"), "finish_reason is absent"),
    (put(2, "choices.0.finish_reason", "end_turn"), 'finish_reason is "end_turn"'),
    (put(2, "choices.0.finish_reason", "stop"), "beside the finish_reason"),
    (put(2, "choices.0.delta.content", ["x"]), "content is"),
    (put(2, "choices.0.delta.refusal", 1), "refusal is 1"),
    (put(1, "choices.0.delta.reasoning_content", 1), "reasoning_content is 1"),
    (lose(0, "choices.0.delta.role"), "the first delta has no role"),
    (put(0, "choices.0.delta.role", "user"), 'role is "user"'),
    (put(2, "choices.0.delta.role", "assistant"), "delta.role in a later chunk"),
    # calls
    (drop(FIRST_CALL), "id is absent"),
    (lose(FIRST_CALL, "choices.0.delta.tool_calls.0.index"), "index is absent"),
    (lose(FIRST_CALL, "choices.0.delta.tool_calls.0.id"), "id is absent"),
    (put(FIRST_CALL, "choices.0.delta.tool_calls.0.id", ""), "id is empty"),
    (lose(FIRST_CALL, "choices.0.delta.tool_calls.0.type"), "type is nothing"),
    (put(FIRST_CALL, "choices.0.delta.tool_calls.0.function.name", ""), "name is empty"),
    (lose(FIRST_CALL, "choices.0.delta.tool_calls.0.function.arguments"), "arguments is absent"),
    (swap(FIRST_CALL, FIRST_CALL + 1), "id is absent"),
    (swap(FIRST_CALL, SECOND_CALL), "a new call has index 1, not 0"),
    (put(SECOND_CALL, "choices.0.delta.tool_calls.0.id", "call_1"), "is another call's"),
    (put(FIRST_CALL + 1, "choices.0.delta.tool_calls.0.id", "call_1"), "in a later piece of call 0"),
    (put(FIRST_CALL + 1, "choices.0.delta.tool_calls.0.function.name", "look"), "in a later piece of call 0"),
    (lose(FIRST_CALL + 1, "choices.0.delta.tool_calls.0.function"), "function is absent"),
    (drop(FIRST_CALL + 1), "the arguments of call 0"),
    (drop(SECOND_CALL + 1), 'the arguments of call 1, "": not JSON'),
    (put(SECOND_CALL + 1, "choices.0.delta.tool_calls.0.function.arguments", "[]"), "[] is not an object"),
    (add(2, chunk(choice(tool_calls=call(2, "call_3", "f")))), "a new call has index 2, not 0"),
    # the end
    (drop(FINISH), "choice 0 has no finish_reason"),
    (twice(FINISH), 'a chunk after finish_reason "tool_calls"'),
    (add(FINISH + 1, chunk(choice("length"))), 'finish_reason is "length" after "tool_calls"'),
    (add(FINISH + 1, chunk(choice(content="late"))), "a chunk after finish_reason"),
    (put(FINISH, "choices.0.finish_reason", "stop"), "finish_reason is stop, and there were calls"),
    (put(FINISH, "choices.0.delta.content", "x"), "delta has content beside the finish_reason"),
    (add(FINISH, chunk(choice(role="assistant", index=1))), "choice 1 has no finish_reason"),
    # usage
    (drop(USAGE), "no usage was told"),
    (twice(USAGE), "the usage a second time"),
    (swap(USAGE, FINISH), "the usage before the end of every choice"),
    (put(FINISH, "usage", CHAT[USAGE].value["usage"]), "the usage beside choices"),
    (add(USAGE + 1, chunk(choice(content=""))), "a chunk after the one with the usage"),
    (put(USAGE, "usage", 16), "usage is 16"),
    (put(USAGE, "usage.total_tokens", 17), "17 tokens in total, not 9 + 7"),
    (lose(USAGE, "usage.prompt_tokens"), "prompt_tokens is absent"),
    (put(USAGE, "usage.prompt_tokens_details.cached_tokens", 10), "10 cached_tokens of 9 tokens"),
    (put(USAGE, "usage.completion_tokens_details.reasoning_tokens", 8), "8 reasoning_tokens of 7 tokens"),
    (lose(USAGE, "usage.total_tokens"), "total_tokens is absent"),
    (put(USAGE, "usage.prompt_tokens_details", 4), "prompt_tokens_details is 4, not an object"),
    (put(USAGE, "usage.completion_tokens_details.reasoning_tokens", "3"), "reasoning_tokens is"),
    (put(FIRST_CALL, "choices.0.delta.tool_calls", {}), "tool_calls is {}, not a list"),
    # an error where there is to be none
    (add(USAGE, CHAT_ERROR), "an error was told"),
]


@pytest.mark.parametrize(("edit", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_with_a_stream_of_chat_is_said(edit: Edit, said: str) -> None:
    found = check_stream("openai", written(CHAT, edit), usage=True)

    assert any(said in each for each in found), found


def test_a_right_stream_of_chat_has_nothing_wrong() -> None:
    assert check_stream("openai", written(CHAT)) == []
    assert check_stream("openai", written(CHAT), usage=True) == []
    assert check_stream("openai", written(CHAT, drop(USAGE)), usage=False) == []
    assert check_stream("openai", written(CHAT).replace(b"\n", b"\r\n")) == []
    assert check_stream("openai", b": ping\n\n" + written(CHAT).replace(b"\n\n", b"\n\n: ping\n\n")) == []


def test_usage_that_nobody_asked_for_is_wrong() -> None:
    assert check_stream("openai", written(CHAT), usage=False) == [
        f"event {USAGE + 1}: the usage, which nobody asked for"
    ]


def test_choices_may_interleave_and_each_has_its_calls() -> None:
    events = plain(
        chunk(choice(role="assistant")),
        chunk(choice(role="assistant", index=1)),
        chunk(choice(content="a", index=1)),
        chunk(choice(content="b")),
        chunk(choice("stop", index=1)),
        chunk(choice(tool_calls=call(0, "call_1", "f"))),
        chunk(choice(tool_calls=arguments(0, "{}"))),
        chunk(choice("tool_calls")),
        "[DONE]",
    )

    assert check_stream("openai", written(events)) == []
    assert check_stream("openai", written(events, put(7, "choices.0.finish_reason", "length"))) == []


def test_tool_calls_without_a_call_are_wrong() -> None:
    events = plain(chunk(choice(role="assistant")), chunk(choice("tool_calls")), "[DONE]")

    assert check_stream("openai", written(events)) == [
        "event 2: choices[0]: finish_reason is tool_calls, and there was no call"
    ]


def test_arguments_that_the_limit_cut_short_need_not_parse() -> None:
    edits = put(FINISH, "choices.0.finish_reason", "length"), drop(FIRST_CALL + 2)

    assert check_stream("openai", written(CHAT, *edits)) == []


def test_an_empty_stream_is_wrong() -> None:
    assert check_stream("openai", b"") == ["at the end: no [DONE]", "at the end: no choice was made"]
    assert check_stream("openai", b"", failed=True) == ["at the end: no error was told"]


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(LAST))
def test_a_stream_of_chat_may_fail_after_any_chunk(at: int) -> None:
    assert check_stream("openai", written(CHAT, cut(at), add(-1, CHAT_ERROR)), failed=True) == []


FAILED: list[tuple[Edit, str]] = [
    (cut(4), "no error was told"),
    (add(LAST, CHAT_ERROR), "an event after the error"),
    (swap(LAST, LAST), "[DONE] though the stream failed"),
    (add(4, {"error": "text"}), 'error is "text", not an object'),
    (add(4, {"error": {**CHAT_ERROR["error"], "message": ""}}), "message is empty"),
    (add(4, {"error": {"message": "x", "param": None, "code": None}}), "type is absent"),
    (add(4, {"error": {"message": "x", "type": "x", "code": None}}), "error.param is absent"),
    (add(4, {"error": {"message": "x", "type": "x", "param": None}}), "error.code is absent"),
]


@pytest.mark.parametrize(("edit", "said"), FAILED, ids=[said for _, said in FAILED])
def test_what_is_wrong_with_a_failure_of_chat_is_said(edit: Edit, said: str) -> None:
    found = check_stream("openai", written(CHAT, edit), failed=True)

    assert any(said in each for each in found), found


# -- what servers like OpenAI's send ---------------------------------------------------------------------------------

LOOSE: list[Edit] = [
    put(2, "choices.0.delta.role", "assistant"),
    put(FIRST_CALL + 1, "choices.0.delta.tool_calls.0.id", "call_1"),
    put(FIRST_CALL + 1, "choices.0.delta.tool_calls.0.function.name", ""),
    put(FIRST_CALL, "choices.0.delta.tool_calls.0.index", 5),
    put(FINISH, "choices.0.finish_reason", "eos"),
    twice(FINISH),
    lose(2, "choices.0.finish_reason"),
    drop(SECOND_CALL + 1),
    add(0, chunk(id="", model="", prompt_filter_results=[])),
    put(USAGE, "usage.total_tokens", 99),
]
STILL_WRONG: list[tuple[Edit, str]] = [
    (put(FINISH, "choices.0.finish_reason", 1), "finish_reason is 1, not a string"),
    (add(FINISH + 1, chunk(choice(content="late"))), "a chunk after finish_reason"),
    (put(2, "id", "other"), "id is"),
    (put(FIRST_CALL + 1, "choices.0.delta.tool_calls.0.id", "call_9"), "in a later piece of call 0"),
    (put(FIRST_CALL, "choices.0.delta.tool_calls.0.function.name", ""), "name is empty"),
]


@pytest.mark.parametrize("edit", LOOSE)
def test_what_servers_like_openais_send_is_wrong_by_the_strict_rules_only(edit: Edit) -> None:
    if edit is not LOOSE[3]:  # moves the pieces of the call to another index
        assert check_stream("openai", written(CHAT, edit), strict=False) == []
    assert check_stream("openai", written(CHAT, edit)) != []


@pytest.mark.parametrize(("edit", "said"), STILL_WRONG, ids=[said for _, said in STILL_WRONG])
def test_some_things_are_wrong_whoever_sends_them(edit: Edit, said: str) -> None:
    assert any(said in each for each in check_stream("openai", written(CHAT, edit), strict=False))


# -- Mistral ---------------------------------------------------------------------------------------------------------

MISTRAL_WRONG: list[tuple[Edit, str]] = [
    (drop(5), "no [DONE]"),
    (drop(4), "choice 0 has no finish_reason"),
    (lose(4, "usage"), "no usage was told"),
    (add(5, chunk(usage=MISTRAL[4].value["usage"])), "the usage without choices"),
    (put(2, "usage", MISTRAL[4].value["usage"]), "the usage before the end of every choice"),
    (lose(3, "choices.0.finish_reason"), "finish_reason is absent"),
    (put(4, "choices.0.finish_reason", "content_filter"), 'finish_reason is "content_filter"'),
    (put(4, "choices.0.delta.tool_calls.0.function.arguments", {"a": 1}), "not a string"),
    (put(4, "choices.0.delta.tool_calls.0.function.arguments", "{"), "the arguments of call 0"),
    (put(1, "choices.0.delta.content.0.type", "reasoning"), 'type is "reasoning"'),
    (lose(1, "choices.0.delta.content.0.type"), "type is absent"),
    (put(1, "choices.0.delta.content.0.thinking", "hm"), "thinking is"),
    (put(1, "choices.0.delta.content.0.thinking.0.type", "x"), 'type is "x"'),
    (lose(1, "choices.0.delta.content.0.thinking.0.text"), "text is absent"),
    (lose(2, "choices.0.delta.content.0.text"), "text is absent"),
    (put(3, "choices.0.delta.content", 7), "content is 7"),
    (put(1, "choices.0.delta.content", [7]), "content[0] is not an object"),
    (add(4, MISTRAL_ERROR), "an error was told"),
    (add(4, {**MISTRAL_ERROR, "message": ""}), "message is empty"),
]


@pytest.mark.parametrize(("edit", "said"), MISTRAL_WRONG, ids=[said for _, said in MISTRAL_WRONG])
def test_what_is_wrong_with_a_stream_of_mistrals_is_said(edit: Edit, said: str) -> None:
    found = check_stream("mistral", written(MISTRAL, edit))

    assert any(said in each for each in found), found


def test_a_right_stream_of_mistrals_has_nothing_wrong() -> None:
    assert check_stream("mistral", written(MISTRAL)) == []
    assert check_stream("mistral", written(MISTRAL, lose(4, "usage")), usage=False) == []
    whole = put(4, "choices.0.delta.tool_calls.0.function.arguments", {"a": 1})
    assert check_stream("mistral", written(MISTRAL, whole), strict=False) == []


@pytest.mark.parametrize("error", [MISTRAL_ERROR, CHAT_ERROR], ids=["bare", "nested"])
def test_a_stream_of_mistrals_may_fail_after_any_chunk(error: dict[str, object]) -> None:
    for at in range(5):
        assert check_stream("mistral", written(MISTRAL, cut(at), add(-1, error)), failed=True) == []
    assert check_stream("mistral", written(MISTRAL, add(5, error)), failed=True) != []
