"""Events in orders that some protocol's reader may give, for a writer of any other to get along with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import attrs

from llmproxy_core.chat import (
    ChatEvent,
    Citation,
    CitationAdded,
    End,
    Finish,
    Finished,
    FinishReason,
    OpaqueEvent,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.testing.dialect.conversations import SIGNATURE, said
from llmproxy_core.usage import Usage

STRANGER = "a-strange-protocol"
"""The dialect that all of these come from: nobody speaks it."""


@attrs.frozen
class EventOrder:
    """One stream. *how* says what is odd about it, for messages."""

    how: str
    events: tuple[ChatEvent, ...]
    has_start: bool = True
    is_finished: bool = True
    """Whether each choice has its Finished."""
    is_right: bool = True
    """Whether a protocol can be expected to like what is made of it: what is not said at all, it cannot tell."""


def orders(random: Random, count: int) -> list[EventOrder]:
    """The odd orders by name, and *count* that are mixed at random."""
    named = [
        EventOrder("plain text", _stream(_texts(0, random))),
        EventOrder("nothing is said", _stream([])),
        EventOrder("parallel calls whose arguments interleave", _stream(_interleaved_calls(0))),
        EventOrder("a call without arguments", _stream([_call(0, 0)], FinishReason.TOOL_CALLS)),
        EventOrder("a call with empty arguments", _stream([_call(0, 0), ToolCallDelta(0, 0, "")])),
        EventOrder(
            "arguments that are no JSON",
            _stream([_call(0, 0), ToolCallDelta(0, 0, '{"city": ')], FinishReason.LENGTH),
            is_right=False,
        ),
        EventOrder("text between and after calls", _stream([_call(0, 0), TextDelta(0, "so"), _call(0, 1)])),
        EventOrder("thinking, text, thinking", _stream(_thinking(0), *([TextDelta(0, "so"), *_thinking(0)],))),
        EventOrder("the finish before the usage", _ends(Finished(0, Finish(FinishReason.STOP)), _used(7))),
        EventOrder("the usage before the finish", _ends(_used(7), Finished(0, Finish(FinishReason.STOP)))),
        EventOrder(
            "usage at the beginning and the end", _ends(_used(1), Finished(0, Finish(FinishReason.STOP)), _used(7))
        ),
        EventOrder(
            "no usage", (_START, TextDelta(0, "so"), Finished(0, Finish(FinishReason.STOP)), End()), is_right=False
        ),
        EventOrder("no finish", (_START, TextDelta(0, "so"), _used(7), End()), is_finished=False),
        EventOrder(
            "no start", (TextDelta(0, "so"), Finished(0, Finish(FinishReason.STOP)), _used(7), End()), has_start=False
        ),
        EventOrder("a refusal", _stream([RefusalDelta(0, "I can"), RefusalDelta(0, "not.")])),
        EventOrder("a filter stopped it", _stream(_texts(0, random), FinishReason.CONTENT_FILTER)),
        EventOrder("its end was cut", _stream(_texts(0, random), FinishReason.LENGTH)),
        EventOrder("two choices in turn", _two_choices(random)),
        EventOrder("a source and what nobody knows", _stream(_strange(0))),
    ]
    return named + [_mixed(random) for _ in range(count)]


_START = Start("strange-1", "strange-model", 1_700_000_000)


def _used(output: int) -> UsageReported:
    return UsageReported(Usage(11, output))


def _stream(said_first: Sequence[ChatEvent], /, *more: FinishReason | Sequence[ChatEvent]) -> tuple[ChatEvent, ...]:
    """A whole stream that says *said_first* and *more*; it calls tools when a call is among it."""
    events = [*said_first, *(event for each in more if not isinstance(each, str) for event in each)]
    reason = next((each for each in more if isinstance(each, FinishReason)), None)
    if reason is None:
        called = any(isinstance(event, ToolCallStart) for event in events)
        reason = FinishReason.TOOL_CALLS if called else FinishReason.STOP
    return (_START, *events, Finished(0, Finish(reason)), _used(7), End())


def _ends(*ends: ChatEvent) -> tuple[ChatEvent, ...]:
    first = [event for event in ends if isinstance(event, UsageReported) and event.usage.output_tokens == 1]
    rest = [event for event in ends if event not in first]
    return (_START, *first, TextDelta(0, "so"), *rest, End())


def _texts(choice: int, random: Random) -> list[ChatEvent]:
    return [TextDelta(choice, piece) for piece in said(random).split(" ")]


def _call(choice: int, index: int) -> ToolCallStart:
    return ToolCallStart(choice, index, f"call{choice:02}{index:03}", ("weather", "time")[index % 2])


def _interleaved_calls(choice: int) -> list[ChatEvent]:
    return [
        _call(choice, 0),
        _call(choice, 1),
        ToolCallDelta(choice, 0, '{"city":'),
        ToolCallDelta(choice, 1, '{"n":"🚲'),
        ToolCallDelta(choice, 0, '"Köln"}'),
        ToolCallDelta(choice, 1, '"}'),
    ]


def _thinking(choice: int) -> list[ChatEvent]:
    return [
        ReasoningDelta(choice, "Hm – "),
        ReasoningDelta(choice, "wo?", provider=STRANGER),
        ReasoningDelta(choice, "", signature=SIGNATURE, provider=STRANGER),
        ReasoningDelta(choice, "", redacted=SIGNATURE, provider=STRANGER),
        ReasoningDelta(choice, "", encrypted=SIGNATURE, provider=STRANGER, id="rs_1"),
    ]


def _strange(choice: int) -> list[ChatEvent]:
    return [
        OpaqueEvent("strange_event", b'event: strange\ndata: {"strange":true}\n\n'),
        TextDelta(choice, "so"),
        CitationAdded(choice, Citation("url", "https://example.com/", "A page")),
        OpaqueEvent("strange_part", b'{"type":"strange"}', choice, f"{STRANGER}.chat"),
        TextDelta(choice, ""),
        TextDelta(choice, "!", signature=SIGNATURE),
        Ping(),
    ]


def _two_choices(random: Random) -> tuple[ChatEvent, ...]:
    pairs = zip(_texts(0, random), _texts(1, random), strict=False)
    spoken = [event for pair in pairs for event in pair]
    finished = Finish(FinishReason.STOP)
    return (_START, *spoken, *_interleaved_calls(1), Finished(1, finished), Finished(0, finished), _used(7), End())


_PIECES: Sequence[Callable[[int, Random], list[ChatEvent]]] = (
    _texts,
    lambda choice, _: _thinking(choice),
    lambda choice, _: _strange(choice),
    lambda choice, _: [RefusalDelta(choice, "No.")],
)


def _mixed(random: Random) -> EventOrder:
    """One or two choices, what each says in its own order, mixed as they come; pings and usage anywhere."""
    queues = [_spoken(choice, random) for choice in range(random.choice([1, 1, 2]))]
    mixed: list[ChatEvent] = []
    while queues := [queue for queue in queues if queue]:
        mixed.append(random.choice(queues).pop(0))
        if random.random() < 0.1:
            mixed.append(Ping() if random.random() < 0.5 else _used(2))
    return EventOrder("a random mixture", (_START, *mixed, _used(7), End()))


def _spoken(choice: int, random: Random) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    for _ in range(random.randint(0, 3)):
        events += random.choice(_PIECES)(choice, random)
    calls = random.random() < 0.5
    if calls:
        at = random.randint(0, len(events))
        events[at:at] = _interleaved_calls(choice)
    return [*events, Finished(choice, Finish(FinishReason.TOOL_CALLS if calls else FinishReason.STOP))]
