"""Events of another protocol, or of a filter, written as chunks of our own making."""

from __future__ import annotations

import time

import attrs

from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    CitationAdded,
    Finished,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_core.usage import Usage
from llmproxy_core.wire.splice import encode, join_array, join_object
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.answer import REASONING_MEMBERS, write_citation
from llmproxy_openai.call_index import CallIndex
from llmproxy_openai.calls import write_signature
from llmproxy_openai.finish import write_finish
from llmproxy_openai.parts import write_part
from llmproxy_openai.usage import write_usage


@attrs.frozen
class StreamForm:
    """One wire form of a stream: *object* is its chunks' type, *is_legacy* that of `/completions`: bare texts."""

    api: str
    object: str
    is_legacy: bool = False


class ChunkRenderer:
    """Writes complete chunks: each has the stream's id, an index, and `finish_reason`, which is null until the end."""

    __slots__ = ("_form", "_head", "_kinds", "_reasoning_member", "_spoken", "_tail", "calls", "is_native", "start")

    def __init__(self, form: StreamForm, *, usage: bool) -> None:
        """*usage*: a usage chunk will come, so every other chunk says `"usage": null`."""
        self._form = form
        self._tail = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._head = b""
        self._kinds: dict[tuple[int, int], str] = {}
        self._reasoning_member = REASONING_MEMBERS[0]
        self._spoken: set[int] = set()
        self.calls: CallIndex | None = None
        """The calls of a stream of this very form, whose indexes our pieces must use."""
        self.is_native = False
        """Whether chunks of the provider went out too; those named the role."""
        self.start: Start | None = None

    def begin(self, start: Start) -> None:
        """Take what all chunks share from *start*."""
        self.start = start
        members = {
            "id": encode(start.id),
            "object": encode(self._form.object),
            "created": encode(int(time.time()) if start.created is None else start.created),
            "model": encode(start.model),
        }
        if start.service_tier is not None:
            members["service_tier"] = encode(start.service_tier)
        if start.fingerprint is not None:
            members["system_fingerprint"] = encode(start.fingerprint)
        self._head = b"data: " + join_object(members)[:-1] + b',"choices":'

    def render(self, event: ChatEvent) -> bytes:
        """The chunks for *event*; b"" when this protocol says nothing for it."""
        if isinstance(event, Start):
            self.begin(event)
            return self._role(0)
        if isinstance(event, Finished):
            legacy = self._kinds.get((event.choice, 0)) == "legacy"
            word = encode(write_finish(event.finish, legacy=legacy))
            return self._role(event.choice) + self._choice(event.choice, {}, finish=word)
        said = self._text(event) if self._form.is_legacy else self._delta(event)
        if said is None:
            return b""
        choice, members, logprobs = said
        return self._role(choice) + self._choice(choice, members, logprobs=logprobs)

    def usage(self, usage: Usage) -> bytes:
        """The chunk that tells *usage*, and no choice."""
        return self._head + b'[],"usage":' + write_usage(usage) + b"}\n\n"

    # -- pieces ------------------------------------------------------------------------------------------------

    def _role(self, choice: int) -> bytes:
        """The first chunk of a choice."""
        if choice in self._spoken or self.is_native or self._form.is_legacy:
            return b""
        self._spoken.add(choice)
        return self._choice(choice, {"role": b'"assistant"', "content": b'""'})

    def _choice(
        self, choice: int, members: dict[str, bytes], *, logprobs: bytes | None = None, finish: bytes = b"null"
    ) -> bytes:
        index = encode(choice)
        tail = b',"logprobs":' + (logprobs or b"null") + b',"finish_reason":' + finish + b"}]" + self._tail
        if self._form.is_legacy:
            text = members.get("text", b'""')
            return self._head + b'[{"text":' + text + b',"index":' + index + tail
        return self._head + b'[{"index":' + index + b',"delta":' + join_object(members) + tail

    @staticmethod
    def _text(event: ChatEvent) -> tuple[int, dict[str, bytes], bytes | None] | None:
        """A bare text has no thinking and no calls."""
        match event:
            case TextDelta(text=text) if text or event.logprobs is not None:
                return event.choice, {"text": encode(text)}, event.logprobs
            case RefusalDelta(text=text) if text:
                return event.choice, {"text": encode(text)}, None
            case _:
                return None

    def _delta(self, event: ChatEvent) -> tuple[int, dict[str, bytes], bytes | None] | None:
        match event:
            case TextDelta(text=text) if text or event.logprobs is not None:
                return event.choice, {"content": encode(text)}, event.logprobs
            case ReasoningDelta(text=text) if text:
                return event.choice, self._thinking(event.member or self._reasoning_member, text), None
            case RefusalDelta(text=text) if text:
                return event.choice, {"refusal": encode(text)}, None
            case ToolCallStart():
                return event.choice, self._call(event), None
            case ToolCallDelta(arguments=arguments) if arguments:
                return event.choice, self._arguments(event), None
            case CitationAdded():
                citation = write_citation(event.citation, Wire(self._form.api, own=True))
                return event.choice, {"annotations": join_array([citation])}, None
            case AudioDelta():
                return event.choice, {"audio": _audio(event)}, None
            case _:
                return None

    def _thinking(self, member: str, text: str) -> dict[str, bytes]:
        if member == "thinking":  # Mistral's place for it is the content
            part = write_part(ReasoningPart(text, member=member), "delta.content", Wire(self._form.api, own=True))
            return {"content": join_array([part])}
        return {member if member in REASONING_MEMBERS else REASONING_MEMBERS[0]: encode(text)}

    def _call(self, event: ToolCallStart) -> dict[str, bytes]:
        """The first piece of a call: all but its arguments."""
        self._kinds[event.choice, event.index] = event.kind
        if event.kind == "legacy":
            return {"function_call": join_object({"name": encode(event.name), "arguments": b'""'})}
        body, member = ("custom", "input") if event.kind == "custom" else ("function", "arguments")
        call = {
            "index": encode(self._wire_index(event.choice, event.index)),
            "id": encode(event.id),
            "type": encode(body),
            body: join_object({"name": encode(event.name), member: b'""'}),
        }
        if event.signature is not None:
            call["extra_content"] = write_signature(event.signature)
        return {"tool_calls": join_array([join_object(call)])}

    def _arguments(self, event: ToolCallDelta) -> dict[str, bytes]:
        """A later piece: the index and more of the arguments."""
        kind = self._kinds.get((event.choice, event.index))
        text = encode(event.arguments)
        if kind == "legacy":
            return {"function_call": join_object({"arguments": text})}
        body, member = ("custom", "input") if kind == "custom" else ("function", "arguments")
        index = encode(self._wire_index(event.choice, event.index))
        return {"tool_calls": join_array([join_object({"index": index, body: join_object({member: text})})])}

    def _wire_index(self, choice: int, index: int) -> int:
        return index if self.calls is None else self.calls.wire_index(choice, index)

    def note(self, event: ChatEvent) -> None:
        """Remember what went out in a chunk of the provider's own."""
        if isinstance(event, Start):
            if self.start is None:
                self.begin(event)
        elif isinstance(event, ToolCallStart):
            self._kinds[event.choice, event.index] = event.kind
        elif isinstance(event, ReasoningDelta) and event.member is not None:
            self._reasoning_member = event.member


def _audio(event: AudioDelta) -> bytes:
    members = {"id": event.id, "data": event.data, "transcript": event.transcript}
    return join_object({name: encode(text) for name, text in members.items() if text is not None})
