"""One answer in its two shapes: whole (`ChatReply`) and as the events of a stream."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import groupby

import attrs
import msgspec

from llmproxy_core.chat import (
    AudioDelta,
    AudioPart,
    ChatEvent,
    ChatReply,
    Choice,
    CitationAdded,
    End,
    Finish,
    Finished,
    JSONText,
    OpaqueEvent,
    OpaquePart,
    Part,
    Raw,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    Source,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.usage import Usage

_TEXTS = (TextDelta, RefusalDelta)
_ANSWERS = (ToolCallStart, CitationAdded, Finished, End)


def answers(event: ChatEvent) -> bool:
    """Whether *event* answers something: until then a stream has not begun, whatever it has told of itself."""
    if isinstance(event, _TEXTS):
        return bool(event.text)
    if isinstance(event, ReasoningDelta):
        return bool(event.text or event.signature or event.redacted or event.encrypted)
    if isinstance(event, AudioDelta):
        return bool(event.data or event.transcript)
    if isinstance(event, OpaqueEvent):
        return event.choice is not None  # else a note of the provider's own
    return isinstance(event, _ANSWERS)


def events_of(reply: ChatReply) -> list[ChatEvent]:
    """The events that a stream of *reply* would have, each part in one piece."""
    events: list[ChatEvent] = [Start(reply.id, reply.model, reply.created, reply.service_tier, reply.fingerprint)]
    for choice in reply.choices:
        events.extend(_events_of_choice(choice))
    if reply.usage is not None:
        events.append(UsageReported(reply.usage))
    events.append(End())
    return events


def _events_of_choice(choice: Choice) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    calls = 0
    logprobs = choice.logprobs
    for part in _placed(choice.content):
        if isinstance(part, ToolCall):
            events.append(_call_start(choice.index, calls, part))
            events.append(ToolCallDelta(choice.index, calls, part.arguments))
            calls += 1
            continue
        events.extend(_events_of_part(choice.index, part))
        if isinstance(part, TextPart) and logprobs is not None:
            events[-1 - len(part.citations)] = TextDelta(choice.index, part.text, logprobs, part.signature)
            logprobs = None
    if logprobs is not None:
        events.append(TextDelta(choice.index, "", logprobs))
    if choice.finish is not None:
        events.append(Finished(choice.index, choice.finish))
    return events


def _placed(parts: Iterable[Part]) -> Iterator[Part]:
    """*parts*, the citations of texts that follow each other with their places in these together: they become one."""
    for is_text, run in groupby(parts, lambda part: isinstance(part, TextPart)):
        together, offset = list(run), 0
        if not is_text or len(together) == 1:
            yield from together
            continue
        for part in together:
            assert isinstance(part, TextPart)
            length = len(part.text)
            yield attrs.evolve(part, citations=tuple(it.moved(offset, length) for it in part.citations))
            offset += length


def _call_start(choice: int, index: int, call: ToolCall) -> ToolCallStart:
    return ToolCallStart(choice, index, call.id, call.name, call.kind, call.signature, call.item_id)


def _events_of_part(choice: int, part: Part) -> list[ChatEvent]:
    match part:
        case TextPart(text=text, citations=citations):
            return [
                TextDelta(choice, text, signature=part.signature),
                *(CitationAdded(choice, citation) for citation in citations),
            ]
        case RefusalPart(text=text):
            return [RefusalDelta(choice, text)]
        case ReasoningPart():
            return [
                ReasoningDelta(
                    choice,
                    part.text,
                    part.signature,
                    part.redacted,
                    part.encrypted,
                    part.provider,
                    part.member,
                    part.summary,
                    part.id,
                )
            ]
        case AudioPart():
            return [AudioDelta(choice, part.source.data, part.transcript, part.id)]
        case OpaquePart():
            return [OpaqueEvent(part.kind, part.raw.text, choice, part.raw.api)]
        case _:  # parts of requests alone: no model answers with them
            return []


class Assembler:
    """Puts the events of a stream together: the reply that a plain call would have given."""

    def __init__(self) -> None:
        self._start: Start | None = None
        self._usage: Usage | None = None
        self._choices: dict[int, _ChoiceBuilder] = {}

    def feed(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            if isinstance(event, Start):
                self._start = event
            elif isinstance(event, UsageReported):
                self._usage = event.usage
            elif (choice := getattr(event, "choice", None)) is not None:
                self._choice(choice).feed(event)

    def _choice(self, index: int) -> _ChoiceBuilder:
        if (builder := self._choices.get(index)) is None:
            builder = self._choices[index] = _ChoiceBuilder(index)
        return builder

    def reply(self) -> ChatReply:
        """What has come so far."""
        start = self._start or Start("", "")
        return ChatReply(
            id=start.id,
            model=start.model,
            choices=tuple(self._choices[index].choice() for index in sorted(self._choices)),
            usage=self._usage,
            created=start.created,
            service_tier=start.service_tier,
            fingerprint=start.fingerprint,
        )


class _ChoiceBuilder:
    """One choice in the making: runs of deltas of one kind are one part."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._runs: list[list[ChatEvent]] = []
        self._calls: dict[int, list[ChatEvent]] = {}
        self._finish: Finish | None = None
        self._logprobs: list[JSONText] = []

    def feed(self, event: ChatEvent) -> None:
        if isinstance(event, Finished):
            self._finish = event.finish
        elif isinstance(event, ToolCallStart):
            self._calls[event.index] = [event]
            self._runs.append(self._calls[event.index])
        elif isinstance(event, ToolCallDelta):
            if event.index in self._calls:
                self._calls[event.index].append(event)
        elif _is_empty(event):
            pass  # it begins no part, and parts none in two
        elif self._runs and self._continues(self._runs[-1][-1], event):
            self._runs[-1].append(event)
        else:
            self._runs.append([event])
        if isinstance(event, TextDelta) and event.logprobs is not None:
            self._logprobs.append(event.logprobs)

    @staticmethod
    def _continues(last: ChatEvent, event: ChatEvent) -> bool:
        """A citation belongs to the text before it; a signature or redacted data ends its thinking block."""
        if isinstance(event, OpaqueEvent):
            return False
        if isinstance(last, ReasoningDelta) and isinstance(event, ReasoningDelta):
            return last.signature is None and last.redacted is None and event.redacted is None
        texts = (TextDelta, CitationAdded)
        return (isinstance(last, texts) and isinstance(event, texts)) or type(last) is type(event)

    def choice(self) -> Choice:
        parts = [part for run in self._runs if (part := _part(run)) is not None]
        return Choice(self._index, tuple(parts), self._finish, _merged(self._logprobs))


def _is_empty(event: ChatEvent) -> bool:
    match event:
        case TextDelta(text="", signature=None) | RefusalDelta(text=""):
            return True
        case ReasoningDelta(text="", signature=None, redacted=None, encrypted=None, id=None):
            return True
        case _:
            return False


def _part(run: list[ChatEvent]) -> Part | None:
    first = run[0]
    match first:
        case ToolCallStart():
            arguments = "".join(event.arguments for event in run if isinstance(event, ToolCallDelta))
            return ToolCall(first.id, first.name, arguments, first.kind, first.item_id, first.signature)
        case TextDelta() | CitationAdded():
            text = "".join(event.text for event in run if isinstance(event, TextDelta))
            citations = tuple(event.citation for event in run if isinstance(event, CitationAdded))
            signature = next(
                (event.signature for event in run if isinstance(event, TextDelta) and event.signature), None
            )
            return TextPart(text, citations, signature=signature) if text or citations or signature else None
        case RefusalDelta():
            text = "".join(event.text for event in run if isinstance(event, RefusalDelta))
            return RefusalPart(text) if text else None
        case ReasoningDelta():
            return _reasoning([event for event in run if isinstance(event, ReasoningDelta)])
        case AudioDelta():
            return _audio([event for event in run if isinstance(event, AudioDelta)])
        case OpaqueEvent(api=str(api)):
            return OpaquePart(first.kind, Raw(api, first.raw))
        case _:
            return None


def _reasoning(deltas: list[ReasoningDelta]) -> ReasoningPart:
    part = ReasoningPart(
        "".join(delta.text for delta in deltas),
        summary=deltas[0].summary,
        provider=deltas[0].provider,
        member=deltas[0].member,
    )
    for delta in deltas:
        part = attrs.evolve(
            part,
            signature=delta.signature or part.signature,
            id=delta.id or part.id,
            redacted=delta.redacted or part.redacted,
            encrypted=delta.encrypted or part.encrypted,
        )
    return part


def _audio(deltas: list[AudioDelta]) -> AudioPart:
    sound = b"".join(base64.b64decode(delta.data) for delta in deltas if delta.data)
    return AudioPart(
        Source(data=base64.b64encode(sound).decode()),
        id=next((delta.id for delta in deltas if delta.id), None),
        transcript="".join(delta.transcript or "" for delta in deltas) or None,
    )


def _merged(pieces: list[JSONText]) -> JSONText | None:
    """The logprobs of all pieces of a text: lists under the same member joined."""
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    merged: dict[str, list[msgspec.Raw] | None] = {}
    for piece in pieces:
        for name, entries in msgspec.json.decode(piece, type=dict[str, list[msgspec.Raw] | None]).items():
            if not entries:
                merged.setdefault(name)
            elif (before := merged.get(name)) is None:
                merged[name] = entries
            else:
                before += entries
    return msgspec.json.encode(merged)
