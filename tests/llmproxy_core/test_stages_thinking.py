"""What a filter holds of thinking comes where the thinking is: before what seals it, and before what is said next."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy_core import Channel, TextFilter
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    End,
    Finished,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_core.reply_events import Assembler
from llmproxy_core.stages import Filtering, Watching, apply_to_events, apply_to_reply
from llmproxy_core.text import Replace
from tests.llmproxy_core.filters import STOP, Logging, hold, reply_of

SEALS = [
    ReasoningDelta(0, "", signature="c2ln", provider="p"),
    ReasoningDelta(0, "", redacted="abc", provider="p"),
    ReasoningDelta(0, "", encrypted="abc", provider="p"),
]
NEXT: list[ChatEvent] = [TextDelta(0, "b"), RefusalDelta(0, "b"), ToolCallStart(0, 0, "c", "f")]


def only_thinking(channel: Channel) -> TextFilter | None:
    return hold(channel) if channel.kind == "reasoning" else None


@pytest.mark.parametrize("seal", SEALS, ids=["signature", "redacted", "encrypted"])
def test_what_is_held_comes_before_the_seal(seal: ReasoningDelta) -> None:
    passed = apply_to_events(Filtering(hold), [ReasoningDelta(0, "a", provider="p"), seal, End()])

    assert passed == [ReasoningDelta(0, "", provider="p"), ReasoningDelta(0, "<a>", provider="p"), seal, End()]


def test_what_is_held_joins_the_text_that_comes_with_the_seal() -> None:
    events: list[ChatEvent] = [ReasoningDelta(0, "a"), ReasoningDelta(0, "b", signature="c2ln"), End()]

    assert apply_to_events(Filtering(hold), events) == [
        ReasoningDelta(0, ""),
        ReasoningDelta(0, "<ab>", signature="c2ln"),
        End(),
    ]


@pytest.mark.parametrize("event", NEXT, ids=["text", "refusal", "call"])
def test_what_is_held_comes_before_what_is_said_next(event: ChatEvent) -> None:
    passed = apply_to_events(Filtering(only_thinking), [ReasoningDelta(0, "a"), event, event, End()])

    assert passed == [ReasoningDelta(0, ""), ReasoningDelta(0, "<a>"), event, event, End()]


def test_an_empty_text_says_nothing() -> None:
    events: list[ChatEvent] = [ReasoningDelta(0, "a"), TextDelta(0, ""), ReasoningDelta(0, "b"), End()]

    assert apply_to_events(Filtering(only_thinking), events)[-2:] == [ReasoningDelta(0, "<ab>"), End()]


def test_another_choice_leaves_it_held() -> None:
    passed = apply_to_events(Filtering(only_thinking), [ReasoningDelta(0, "a"), TextDelta(1, "b")])

    assert passed == [ReasoningDelta(0, ""), TextDelta(1, "b")]


def test_what_is_held_looks_like_the_thinking_before_it() -> None:
    events: list[ChatEvent] = [ReasoningDelta(0, "a", provider="p", member="reasoning", summary=True, id="r"), End()]

    held = apply_to_events(Filtering(hold), events)[1]

    assert held == ReasoningDelta(0, "<a>", provider="p", member="reasoning", summary=True)


def test_a_watcher_sees_all_thinking_as_one() -> None:
    logging = Logging()
    events: list[ChatEvent] = [ReasoningDelta(0, "a"), SEALS[0], TextDelta(0, "b"), ReasoningDelta(0, "c"), End()]

    apply_to_events(Watching(logging), events)

    assert [text for channel, text in logging.seen if channel.kind == "reasoning"] == ["a", "c", None]


def test_each_thinking_of_a_reply_is_a_text_of_its_own() -> None:
    parts = (ReasoningPart("a", signature="s"), ReasoningPart("b"), TextPart("c"), ReasoningPart("d"))

    passed = apply_to_reply(Filtering(hold), reply_of(*parts))

    assert [getattr(part, "text", "") for part in passed.choices[0].content] == ["<a>", "<b>", "<c>", "<d>"]


PIECES = st.lists(st.tuples(st.sampled_from(["think", "seal", "text", "call"]), st.text("secrt ", max_size=6)))


def said(pieces: list[tuple[str, str]]) -> list[ChatEvent]:
    events: list[ChatEvent] = [Start("id", "m")]
    calls = 0
    for kind, text in pieces:
        match kind:
            case "think":
                events.append(ReasoningDelta(0, text))
            case "seal":
                events.append(ReasoningDelta(0, text, signature="c2ln"))
            case "text":
                events.append(TextDelta(0, text))
            case _:
                events += [ToolCallStart(0, calls, f"c{calls}", "f"), ToolCallDelta(0, calls, text)]
                calls += 1
    return [*events, Finished(0, STOP)]


def whole(events: list[ChatEvent]) -> ChatReply:
    assembler = Assembler()
    assembler.feed(events)
    return assembler.reply()


def thinking_and_calls(reply: ChatReply) -> list[tuple[str, str]]:
    """
    In their order, those without text left out.

    Thinking before and behind a text is one: a text of which a filter holds all comes behind what is thought meanwhile.
    """
    found: list[tuple[str, str]] = []
    for part in (part for choice in reply.choices for part in choice.content):
        if isinstance(part, ToolCall) and part.arguments:
            found.append(("call", part.arguments))
        elif isinstance(part, ReasoningPart) and part.text:
            before = found.pop()[1] if found and found[-1][0] == "think" else ""
            found.append(("think", before + part.text))
    return found


@given(PIECES)
@example([("think", "cs"), ("text", "")])
@example([("think", "c"), ("text", "s"), ("think", "c")])
def test_a_filter_leaves_thinking_where_it_is_in_a_stream_as_in_the_whole(pieces: list[tuple[str, str]]) -> None:
    def make(channel: Channel) -> TextFilter:
        return Replace({"secret": "***", "sect": "#"})

    events = said(pieces)
    streamed = whole(apply_to_events(Filtering(make), events))
    plain = apply_to_reply(Filtering(make), whole(events))

    assert streamed.text == plain.text
    assert thinking_and_calls(streamed) == thinking_and_calls(plain)
