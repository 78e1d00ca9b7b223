"""Watchers and filters at work: what subscriptions do to the text of an answer, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import attrs

from llmproxy_core.chat import (
    AudioDelta,
    AudioPart,
    ChatEvent,
    ChatReply,
    Choice,
    End,
    Finished,
    Part,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
)
from llmproxy_core.subscription import MakeFilter, MakeWatcher
from llmproxy_core.text import Channel, TextFilter, Watcher

SPOKEN = 1  # the transcript of spoken output is a text of its own


class TextStage(Protocol):
    """One subscription's work on one response. Channels come in any order; `end` ends all of one choice."""

    def feed(self, channel: Channel, text: str) -> str: ...

    def end(self, choice: int | None) -> list[tuple[Channel, str]]:
        """What filters of *choice* (None: of all that are left) still held, with the channel it belongs to."""
        ...


class Watching:
    """Shows text to watchers; they may raise."""

    def __init__(self, make: MakeWatcher) -> None:
        self._make = make
        self._watchers: dict[Channel, Watcher | None] = {}

    def feed(self, channel: Channel, text: str) -> str:
        if channel not in self._watchers:
            self._watchers[channel] = self._make(channel)
        if (watcher := self._watchers[channel]) is not None and text:
            watcher.feed(text)
        return text

    def end(self, choice: int | None) -> list[tuple[Channel, str]]:
        for channel in _of_choice(self._watchers, choice):
            if (watcher := self._watchers.pop(channel)) is not None:
                watcher.end()
        return []


class Filtering:
    """Sends text through filters."""

    def __init__(self, make: MakeFilter) -> None:
        self._make = make
        self._filters: dict[Channel, TextFilter | None] = {}

    def feed(self, channel: Channel, text: str) -> str:
        if channel not in self._filters:
            self._filters[channel] = self._make(channel)
        text_filter = self._filters[channel]
        return text if text_filter is None or not text else _text(text_filter.feed(text))

    def end(self, choice: int | None) -> list[tuple[Channel, str]]:
        held: list[tuple[Channel, str]] = []
        for channel in _of_choice(self._filters, choice):
            text_filter = self._filters.pop(channel)
            if text_filter is not None and (text := _text(text_filter.flush())):
                held.append((channel, text))
        return held


def _text(given: object) -> str:
    """What a filter gave: its author may have forgotten a return."""
    if not isinstance(given, str):
        raise TypeError(f"a filter must give a str, not {type(given).__name__}")
    return given


def _of_choice(channels: Iterable[Channel], choice: int | None) -> list[Channel]:
    return [channel for channel in channels if choice is None or channel.choice == choice]


# -- events ----------------------------------------------------------------------------------------------------------


def apply_to_events(stage: TextStage, events: Iterable[ChatEvent]) -> list[ChatEvent]:
    """*events* after *stage*; an event whose text it left as it was is the same object."""
    out: list[ChatEvent] = []
    for event in events:
        if isinstance(event, Finished):
            out.extend(_delta(channel, text) for channel, text in stage.end(event.choice))
        elif isinstance(event, End):
            out.extend(_delta(channel, text) for channel, text in stage.end(None))
        elif (spoken := _text_of(event)) is not None:
            channel, text = spoken
            if (changed := stage.feed(channel, text)) != text:
                event = _with_text(event, changed)
        out.append(event)
    return out


def _text_of(event: ChatEvent) -> tuple[Channel, str] | None:
    match event:
        case TextDelta(choice=choice, text=text):
            return Channel(choice, "text", 0), text
        case ReasoningDelta(choice=choice, text=text):
            return Channel(choice, "reasoning", 0), text
        case RefusalDelta(choice=choice, text=text):
            return Channel(choice, "refusal", 0), text
        case ToolCallDelta(choice=choice, index=index, arguments=text):
            return Channel(choice, "arguments", index), text
        case AudioDelta(choice=choice, transcript=str(text)):
            return Channel(choice, "text", SPOKEN), text
        case _:
            return None


def _with_text(event: ChatEvent, text: str) -> ChatEvent:
    match event:
        case TextDelta():
            return TextDelta(event.choice, text)  # logprobs of tokens that are not sent would tell what they were
        case ReasoningDelta() | RefusalDelta():
            return attrs.evolve(event, text=text)
        case ToolCallDelta():
            return ToolCallDelta(event.choice, event.index, text)
        case AudioDelta():
            return AudioDelta(event.choice, None, text, event.id)  # sound cannot be rewritten, so it is not sent
        case _:
            return event


def _delta(channel: Channel, text: str) -> ChatEvent:
    match channel.kind:
        case "reasoning":
            return ReasoningDelta(channel.choice, text)
        case "refusal":
            return RefusalDelta(channel.choice, text)
        case "arguments":
            return ToolCallDelta(channel.choice, channel.index, text)
        case "text":
            if channel.index == SPOKEN:
                return AudioDelta(channel.choice, None, text)
            return TextDelta(channel.choice, text)


# -- whole replies ---------------------------------------------------------------------------------------------------


def apply_to_reply(stage: TextStage, reply: ChatReply) -> ChatReply:
    """*reply* after *stage*; a part whose text it left as it was is the same object."""
    choices = tuple(_apply_to_choice(stage, choice) for choice in reply.choices)
    if all(new is old for new, old in zip(choices, reply.choices, strict=True)):
        return reply
    return attrs.evolve(reply, choices=choices)


def _apply_to_choice(stage: TextStage, choice: Choice) -> Choice:
    texts: dict[int, str] = {}
    places: dict[Channel, int] = {}
    calls = 0
    for place, part in enumerate(choice.content):
        if (spoken := _text_of_part(choice.index, part, calls)) is not None:
            channel, text = spoken
            texts[place] = stage.feed(channel, text)
            places[channel] = place
        calls += isinstance(part, ToolCall)
    for channel, text in stage.end(choice.index):
        texts[places[channel]] += text
    parts = tuple(_part_with(part, texts.get(place)) for place, part in enumerate(choice.content))
    if all(new is old for new, old in zip(parts, choice.content, strict=True)):
        return choice
    return attrs.evolve(choice, content=parts, logprobs=None)


def _text_of_part(choice: int, part: Part, calls: int) -> tuple[Channel, str] | None:
    match part:
        case TextPart(text=text):
            return Channel(choice, "text", 0), text
        case ReasoningPart(text=text):
            return Channel(choice, "reasoning", 0), text
        case RefusalPart(text=text):
            return Channel(choice, "refusal", 0), text
        case ToolCall(arguments=text):
            return Channel(choice, "arguments", calls), text
        case AudioPart(transcript=str(text)):
            return Channel(choice, "text", SPOKEN), text
        case _:
            return None


def _part_with(part: Part, text: str | None) -> Part:
    match part:
        case TextPart() | ReasoningPart() | RefusalPart() if text is not None and text != part.text:
            return attrs.evolve(part, text=text)
        case ToolCall() if text is not None and text != part.arguments:
            return attrs.evolve(part, arguments=text)
        case AudioPart() if text is not None and text != part.transcript:
            return attrs.evolve(part, transcript=text, source=attrs.evolve(part.source, data=""))
        case _:
            return part
