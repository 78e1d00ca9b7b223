"""What became of the events of a chunk, after processors had them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    CitationAdded,
    Finished,
    OpaqueEvent,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_openai.chunk import Place

Key = tuple[object, ...]

Slot = tuple[ChatEvent, Place, ChatEvent | None]
"""An event as read, its place, and what it has become: None when it is gone."""


@attrs.frozen
class Pairing:
    """The events of a chunk with what became of each, and those that have no place in it: before it, and after."""

    slots: list[Slot]
    earlier: list[ChatEvent]
    later: list[ChatEvent]

    @property
    def is_empty(self) -> bool:
        """Nothing of the chunk is left."""
        return all(now is None for _, _, now in self.slots)


def pair(before: Sequence[ChatEvent], places: Sequence[Place], events: Sequence[ChatEvent]) -> Pairing:
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
    empty: set[Key] | None = None  # the channels of those that were nothing from the beginning
    for event in events:
        key = _channel(event)
        if _is_nothing(event):
            if empty is None:
                empty = {_channel(was) for was in before if _is_nothing(was)}
            if key not in empty:
                continue
        if free.get(key):
            last[key] = free[key].pop()
            taken[last[key]] = event
            earlier += later
            later = []
        elif key in last and (joined := _joined(taken[last[key]], event)) is not None:
            taken[last[key]] = joined
        else:
            later.append(event)
    slots = [(event, places[position], taken.get(position)) for position, event in enumerate(before)]
    return Pairing(slots, earlier, later)


def _is_nothing(event: ChatEvent) -> bool:
    """A text that a filter has emptied: its place is left, and no chunk goes out for it alone."""
    if isinstance(event, ToolCallDelta):
        return not event.arguments
    return isinstance(event, TextDelta | ReasoningDelta | RefusalDelta) and not event.text


def _channel(event: ChatEvent) -> Key:
    match event:
        case ToolCallStart() | ToolCallDelta():
            return (type(event), event.choice, event.index)
        case Start() | UsageReported():
            return (type(event),)
        case OpaqueEvent():
            return (OpaqueEvent, event.raw)
        case TextDelta() | ReasoningDelta() | RefusalDelta() | CitationAdded() | AudioDelta() | Finished():
            return (type(event), event.choice)
        case _:
            return (type(event),)


def _joined(first: ChatEvent, second: ChatEvent) -> ChatEvent | None:
    """Two events of one channel as one; None where that cannot be."""
    if isinstance(first, TextDelta) and isinstance(second, TextDelta):
        return TextDelta(first.choice, first.text + second.text)
    if isinstance(first, ReasoningDelta) and isinstance(second, ReasoningDelta):
        return attrs.evolve(first, text=first.text + second.text)
    if isinstance(first, RefusalDelta) and isinstance(second, RefusalDelta):
        return RefusalDelta(first.choice, first.text + second.text)
    if isinstance(first, ToolCallDelta) and isinstance(second, ToolCallDelta):
        return ToolCallDelta(first.choice, first.index, first.arguments + second.arguments)
    return None
