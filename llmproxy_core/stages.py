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
    ToolCallStart,
)
from llmproxy_core.subscription import MakeFilter, MakeWatcher
from llmproxy_core.text import Channel, TextFilter, Watcher

SPOKEN = 1  # the transcript of spoken output is a text of its own


class TextStage(Protocol):
    """One subscription's work on one response. Channels come in any order; `end` ends all of one choice."""

    thinking: dict[int, ReasoningDelta]
    """The last of each choice that is not over; what a filter held of it goes out as its like."""

    def feed(self, channel: Channel, text: str) -> str: ...

    def end_thinking(self, choice: int) -> list[tuple[Channel, str]]:
        """
        What a filter still held of the thinking of *choice*, where what comes next must come after it.

        Thinking that follows later is a text of its own for filters; a watcher sees all as one.
        """
        ...

    def end(self, choice: int | None) -> list[tuple[Channel, str]]:
        """What filters of *choice* (None: of all that are left) still held, with the channel it belongs to."""
        ...


class Watching:
    """Shows text to watchers; they may raise."""

    def __init__(self, make: MakeWatcher) -> None:
        self.thinking: dict[int, ReasoningDelta] = {}
        self._make = make
        self._watchers: dict[Channel, Watcher | None] = {}

    def feed(self, channel: Channel, text: str) -> str:
        if channel not in self._watchers:
            self._watchers[channel] = self._make(channel)
        if (watcher := self._watchers[channel]) is not None and text:
            watcher.feed(text)
        return text

    def end_thinking(self, choice: int) -> list[tuple[Channel, str]]:
        return []

    def end(self, choice: int | None) -> list[tuple[Channel, str]]:
        for channel in _of_choice(self._watchers, choice):
            if (watcher := self._watchers.pop(channel)) is not None:
                watcher.end()
        return []


class Filtering:
    """Sends text through filters."""

    def __init__(self, make: MakeFilter) -> None:
        self.thinking: dict[int, ReasoningDelta] = {}
        self._make = make
        self._filters: dict[Channel, TextFilter | None] = {}

    def feed(self, channel: Channel, text: str) -> str:
        if channel not in self._filters:
            self._filters[channel] = self._make(channel)
        text_filter = self._filters[channel]
        return text if text_filter is None or not text else _text(text_filter.feed(text))

    def end_thinking(self, choice: int) -> list[tuple[Channel, str]]:
        channel = Channel(choice, "reasoning", 0)
        return self._flush([channel] if channel in self._filters else [])

    def end(self, choice: int | None) -> list[tuple[Channel, str]]:
        return self._flush(_of_choice(self._filters, choice))

    def _flush(self, channels: Iterable[Channel]) -> list[tuple[Channel, str]]:
        held: list[tuple[Channel, str]] = []
        for channel in channels:
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
            out += _held(stage, stage.end(event.choice))
        elif isinstance(event, End):
            out += _held(stage, stage.end(None))
        elif isinstance(event, ToolCallStart):
            out += _end_thinking(stage, event.choice)
        elif (spoken := _text_of(event)) is not None:
            channel, text = spoken
            if text and channel.kind in ("text", "refusal"):
                out += _end_thinking(stage, channel.choice)
            changed = stage.feed(channel, text)
            if isinstance(event, ReasoningDelta):
                changed += _note(stage, event, out)
            if changed != text:
                event = _with_text(event, changed)
        out.append(event)
    return out


def _end_thinking(stage: TextStage, choice: int) -> list[ChatEvent]:
    """What was held of the thinking of *choice*, before something else is said."""
    if choice not in stage.thinking:
        return []
    held = _held(stage, stage.end_thinking(choice))
    del stage.thinking[choice]
    return held


def _note(stage: TextStage, event: ReasoningDelta, out: list[ChatEvent]) -> str:
    """
    Remember *event*, unless it seals the thinking: nothing may be added to that any more.

    What was held is then given, to be added to its text; when it has none, it is added to *out*.
    """
    if not (event.signature or event.redacted or event.encrypted):
        stage.thinking[event.choice] = event
        return ""
    if not event.text:
        out += _end_thinking(stage, event.choice)
        return ""
    stage.thinking.pop(event.choice, None)
    return "".join(text for _, text in stage.end_thinking(event.choice))


def _held(stage: TextStage, held: Iterable[tuple[Channel, str]]) -> list[ChatEvent]:
    return [_delta(channel, text, stage.thinking.get(channel.choice)) for channel, text in held]


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


def _delta(channel: Channel, text: str, thinking: ReasoningDelta | None) -> ChatEvent:
    match channel.kind:
        case "reasoning" if thinking is not None:
            return attrs.evolve(thinking, text=text, id=None)
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
        spoken = _text_of_part(choice.index, part, calls)
        held = stage.end_thinking(choice.index) if _comes_after_thinking(part) else []
        if spoken is not None:
            channel, text = spoken
            texts[place] = stage.feed(channel, text)
            places[channel] = place
        if isinstance(part, ReasoningPart) and (part.signature or part.redacted or part.encrypted):
            held = stage.end_thinking(choice.index)
        for channel, text in held:
            texts[places[channel]] += text
        calls += isinstance(part, ToolCall)
    for channel, text in stage.end(choice.index):
        texts[places[channel]] += text
    parts = tuple(_part_with(part, texts.get(place)) for place, part in enumerate(choice.content))
    if all(new is old for new, old in zip(parts, choice.content, strict=True)):
        return choice
    return attrs.evolve(choice, content=parts, logprobs=None)


def _comes_after_thinking(part: Part) -> bool:
    return isinstance(part, ToolCall) or (isinstance(part, TextPart | RefusalPart) and bool(part.text))


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
