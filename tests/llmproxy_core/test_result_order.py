"""Results of tools stand right behind the turn that called."""

from __future__ import annotations

import pytest

from llmproxy_core.chat import Message, TextPart, ToolCall, ToolResult
from llmproxy_core.wire import paired, results_next


def user(*parts: TextPart | ToolResult) -> Message:
    return Message("user", parts)


def called(*ids: str) -> Message:
    return Message("assistant", tuple(ToolCall(each, f"tool_{each}", "{}") for each in ids))


def result(call_id: str, name: str | None = None) -> ToolResult:
    return ToolResult(call_id, (TextPart(f"gave {call_id}"),), name)


WORDS = TextPart("go on")
HELD = [user(WORDS), called("a", "b"), Message("tool", (result("a"), result("b"))), user(WORDS)]


def test_what_is_in_order_is_the_same_object() -> None:
    assert results_next(HELD) is HELD


@pytest.mark.parametrize(
    "messages",
    [
        [user(WORDS), called("a", "b"), user(WORDS), Message("tool", (result("a"), result("b")))],
        [user(WORDS), called("a", "b"), user(WORDS, result("a"), result("b"))],
        [user(WORDS), called("a", "b"), user(result("a"), WORDS, result("b"))],
        [user(WORDS), called("a"), called("b"), user(WORDS, result("a")), user(result("b"))],
        [user(WORDS), called("a", "b"), user(WORDS), Message("tool", (result("", "tool_a"),)), user(result("b"))],
    ],
)
def test_results_go_before_what_was_said_between(messages: list[Message]) -> None:
    ordered = results_next(messages)

    place = max(index for index, message in enumerate(ordered) if message.role == "assistant")
    assert [type(part) for part in ordered[place + 1].content] == [ToolResult, ToolResult]
    assert ordered[place + 1].role == "tool"
    assert [part for message in ordered[place + 2 :] for part in message.content] == [WORDS]
    assert len(paired(ordered)) == 2


def test_ids_that_come_again_belong_to_the_last_turn() -> None:
    messages = [called("a"), user(result("a")), called("a"), user(WORDS, result("a"))]

    ordered = results_next(messages)

    assert [message.role for message in ordered] == ["assistant", "tool", "assistant", "tool", "user"]


def test_a_result_without_a_call_stays_where_it_is() -> None:
    messages = [called("a"), user(WORDS), user(result("x")), user(result("a"))]

    assert [message.role for message in results_next(messages)] == ["assistant", "tool", "user", "user"]
