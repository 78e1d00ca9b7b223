"""What became of the events of a chunk, after processors had them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.chat import (
    ChatEvent,
    CitationAdded,
    OpaqueEvent,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)

Key = tuple[object, ...]


@attrs.frozen
class Pairing:
    """What each event of a chunk has become (None: it is gone), and the events that have no place in it."""

    became: list[ChatEvent | None]
    earlier: list[ChatEvent]
    later: list[ChatEvent]

    @property
    def is_empty(self) -> bool:
        """Nothing of the chunk is left."""
        return all(now is None for now in self.became)


def pair(before: Sequence[ChatEvent], events: Sequence[ChatEvent]) -> Pairing:
    """
    Find the place of each of *events* in the chunk: that of an event of the same channel.

    Texts of one channel run together, so that several share its last place.
    """
    free: dict[Key, list[int]] = {}  # the first is the last of its list
    for position in reversed(range(len(before))):
        free.setdefault(_channel(before[position]), []).append(position)
    taken: dict[int, ChatEvent] = {}
    last: dict[Key, int] = {}
    earlier: list[ChatEvent] = []
    later: list[ChatEvent] = []
    for event in events:
        key = _channel(event)
        if free.get(key):
            last[key] = free[key].pop()
            taken[last[key]] = event
            earlier += later
            later = []
        elif key in last and (joined := _joined(taken[last[key]], event)) is not None:
            taken[last[key]] = joined
        else:
            later.append(event)
    return Pairing([taken.get(position) for position in range(len(before))], earlier, later)


def _channel(event: ChatEvent) -> Key:
    match event:
        case ToolCallStart() | ToolCallDelta():
            return (type(event), event.choice, event.index)
        case Start() | UsageReported():
            return (type(event),)
        case OpaqueEvent():
            return (OpaqueEvent, event.raw)
        case CitationAdded(choice=choice, citation=citation):
            return (CitationAdded, choice, citation)
        case _:
            return (type(event), getattr(event, "choice", None))


def _joined(first: ChatEvent, second: ChatEvent) -> ChatEvent | None:
    """Two events of one channel as one; None where that cannot be."""
    match first, second:
        case (TextDelta(), TextDelta()) | (ReasoningDelta(), ReasoningDelta()) | (RefusalDelta(), RefusalDelta()):
            return attrs.evolve(first, text=first.text + second.text)  # type: ignore[union-attr,arg-type]
        case ToolCallDelta(), ToolCallDelta():
            return attrs.evolve(first, arguments=first.arguments + second.arguments)
        case _:
            return None
