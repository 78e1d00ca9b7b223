"""Events of another protocol, or of a filter, written as chunks of our own making."""

from __future__ import annotations

import time

import attrs

from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    CitationAdded,
    Finish,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_core.usage import Usage
from llmproxy_core.wire import text_signature
from llmproxy_core.wire.made_id import made_id
from llmproxy_core.wire.splice import encode, join_array, join_object
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.call_index import CallIndex
from llmproxy_openai.calls import write_signature
from llmproxy_openai.citation import write_citation
from llmproxy_openai.finish import called, write_finish
from llmproxy_openai.parts import write_part
from llmproxy_openai.reasoning_details import write_details
from llmproxy_openai.reply import tier_of
from llmproxy_openai.stream_form import ChoiceSoFar, StreamForm
from llmproxy_openai.thinking import REASONING_MEMBERS, thinking_member
from llmproxy_openai.usage import write_usage

_MOST_CITATIONS = 1000
"""Of a choice, that are kept for one chunk."""


class ChunkRenderer:
    """Writes complete chunks: each has the stream's id, an index, and `finish_reason`, which is null until the end."""

    __slots__ = (
        "_null_usage",
        "_reasoning_member",
        "calls",
        "choices",
        "form",
        "head",
        "is_native",
        "kinds",
        "start",
    )

    def __init__(self, form: StreamForm, *, usage: bool) -> None:
        """*usage*: a usage chunk will come, so every other chunk says `"usage": null`."""
        self.form = form
        self._null_usage = b',"usage":null' if usage else b""
        self.head = b""
        """How every chunk begins, up to its choices."""
        self.choices: dict[int, ChoiceSoFar] = {}
        self.kinds: dict[tuple[int, int], str] = {}
        """The kinds of the calls, by choice and index."""
        self._reasoning_member = form.thinking
        self.calls: CallIndex | None = None
        """The calls of a stream of this very form, whose indexes our pieces must use."""
        self.is_native = False
        """Whether chunks of the provider went out too; those named the role."""
        self.start: Start | None = None

    def begin(self, start: Start) -> None:
        """Take what all chunks share from *start*."""
        self.start = start
        members = {
            "id": encode(start.id or made_id(time.time_ns(), prefix="chatcmpl-")),
            "object": encode(self.form.object),
            "created": encode(int(time.time()) if start.created is None else start.created),
            "model": encode(start.model),
        }
        if (tier := tier_of(start.service_tier)) is not None:
            members["service_tier"] = encode(tier)
        if start.fingerprint is not None:
            members["system_fingerprint"] = encode(start.fingerprint)
        self.head = b"data: " + join_object(members)[:-1] + b',"choices":'

    def render(self, event: ChatEvent) -> bytes:
        """The chunks for *event*; b"" when this protocol says nothing for it."""
        if isinstance(event, Start):
            self.begin(event)
            return self.role(0)
        choice: int | None = getattr(event, "choice", None)
        if choice is None:
            return b""
        if isinstance(event, TextDelta) and event.signature is not None:
            return self._signed(event)
        before = self.before(choice, event)
        if isinstance(event, Finished):
            return before + self.finish(choice, event.finish)
        if isinstance(event, CitationAdded) and not (self.is_native or self.form.is_legacy):
            return before + self._hold(event)
        said = self._text(event) if self.form.is_legacy else self._delta(event)
        if said is None:
            return before
        _, members, logprobs = said
        return before + self.role(choice) + self.chunk(choice, members, logprobs=logprobs)

    def _signed(self, event: TextDelta) -> bytes:
        """A piece of a text, and its signature; a content that is a string so far does not become a list for it."""
        told = text_signature.apart_in_stream(event)
        if self.form.thinking == "thinking" and not self.so_far(event.choice).has_thought:
            told = [each for each in told if isinstance(each, TextDelta)]
        return b"".join([self.render(each) for each in told])

    def finish(self, choice: int, finish: Finish) -> bytes:
        """The chunk that ends *choice*, which it does once."""
        so_far, role = self.so_far(choice), self.role(choice)
        if so_far.has_finished:
            return b""
        so_far.has_finished = True
        empty = [] if self.is_native else so_far.empty_calls()
        calls = [self.chunk(choice, self._arguments(ToolCallDelta(choice, index, "{}"))) for index in empty]
        calls.append(self.citations(choice))
        return role + b"".join(calls) + self.chunk(choice, {}, finish=self.word(choice, finish))

    def word(self, choice: int, finish: Finish) -> bytes:
        """Why *choice* ended, as JSON text."""
        legacy = self.form.has_legacy_calls and self.kinds.get((choice, 0)) == "legacy"
        finish = called(finish) if (choice, 0) in self.kinds else finish
        return encode(write_finish(finish, self.form.words, legacy=legacy))

    def end(self, usage: Usage | None) -> bytes:
        """What comes before the end mark: the end of choices without one, and the chunk that tells *usage* alone."""
        if self.start is None:
            return b""
        left = [] if self.is_native else [it for it, so_far in self.choices.items() if not so_far.has_finished]
        out = b"".join([self.render(Finished(it, Finish(FinishReason.STOP))) for it in left])
        return out if usage is None else out + self.head + b'[],"usage":' + write_usage(usage) + b"}\n\n"

    # -- pieces ------------------------------------------------------------------------------------------------

    def so_far(self, choice: int) -> ChoiceSoFar:
        """What has gone out of *choice*."""
        if (found := self.choices.get(choice)) is None:
            found = self.choices[choice] = ChoiceSoFar(self.form.dialect)
        return found

    def role(self, choice: int) -> bytes:
        """The first chunk of a choice."""
        so_far = self.so_far(choice)
        if so_far.has_role or self.is_native or self.form.is_legacy:
            return b""
        so_far.has_role = True
        return self.chunk(choice, {"role": b'"assistant"', "content": b'""'})

    def before(self, choice: int, event: ChatEvent) -> bytes:
        """What comes before *event*: the block of thinking that it brings to an end."""
        if self.start is None:  # a reader should have given it: chunks share what it says
            self.begin(Start("", ""))
        if self.form.is_legacy or self.is_native:
            return b""
        so_far = self.so_far(choice)
        so_far.note(event)
        if (thought := so_far.block(event)) is None:
            return b""
        return self.role(choice) + self.chunk(choice, self._carried(thought, so_far.thinking.told - 1))

    def chunk(
        self, choice: int, members: dict[str, bytes], *, logprobs: bytes | None = None, finish: bytes = b"null"
    ) -> bytes:
        """A chunk with *members* as the delta of *choice*."""
        index = encode(choice)
        tail = b',"logprobs":' + (logprobs or b"null") + b',"finish_reason":' + finish + b"}]"
        tail += self._null_usage + b"}\n\n"
        if self.form.is_legacy:
            text = members.get("text", b'""')
            return self.head + b'[{"text":' + text + b',"index":' + index + tail
        return self.head + b'[{"index":' + index + b',"delta":' + join_object(members) + tail

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
            case ReasoningDelta():
                members = self._thinking(event)
                return None if members is None else (event.choice, members, None)
            case RefusalDelta(text=text) if text:
                return event.choice, {"refusal": encode(text)}, None
            case ToolCallStart():
                return event.choice, self._call(event), None
            case ToolCallDelta(arguments=arguments) if arguments:
                return event.choice, self._arguments(event), None
            case CitationAdded():
                return event.choice, {"annotations": join_array([self._citation(event)])}, None
            case AudioDelta():
                return event.choice, {"audio": _audio(event)}, None
            case _:
                return None

    def _thinking(self, event: ReasoningDelta) -> dict[str, bytes] | None:
        dialect = self.form.dialect
        member = thinking_member(event.member or self._reasoning_member, event.provider, dialect, self.form.thinking)
        if member == "thinking":
            signature = event.signature if event.provider in (None, dialect) else None
            if not event.text and signature is None:
                return None
            return self._content(ReasoningPart(event.text, signature=signature, provider=dialect, member=member))
        if not event.text:
            return None
        return {member if member in REASONING_MEMBERS else REASONING_MEMBERS[0]: encode(event.text)}

    def _carried(self, part: ReasoningPart, place: int) -> dict[str, bytes]:
        """What of a block of thinking, whose text has gone out, must come back."""
        if self.form.thinking == "thinking":
            return self._content(attrs.evolve(part, text="", member="thinking"))
        return {"reasoning_details": write_details([part], place)}

    def _content(self, part: ReasoningPart) -> dict[str, bytes]:
        """Mistral's place for thinking."""
        return {"content": join_array([write_part(part, "delta.content", Wire(self.form.api, own=True))])}

    def _citation(self, event: CitationAdded) -> bytes:
        so_far = self.so_far(event.choice)
        wire = Wire(self.form.api, own=True)
        return write_citation(event.citation, wire, so_far.text_start, so_far.text_length)

    def _hold(self, event: CitationAdded) -> bytes:
        """
        Keep a citation until its choice ends; the chunk of as many as may be kept.

        OpenAI sends all of them at once, and its SDKs know no other way: that for Python raises at a second list whose
        entries have no index, and that for Node keeps the last list alone.
        """
        held = self.so_far(event.choice).held_citations
        held.append(self._citation(event))
        return self.citations(event.choice) if len(held) == _MOST_CITATIONS else b""

    def citations(self, choice: int) -> bytes:
        """The citations of *choice* that were kept, in a chunk; it is about to end."""
        so_far = self.so_far(choice)
        held = so_far.held_citations
        if not held:
            return b""
        if so_far.cited:
            held = [b'{"index":%d,%b' % (so_far.cited + place, each[1:]) for place, each in enumerate(held)]
        so_far.cited += len(held)
        so_far.held_citations = []
        return self.role(choice) + self.chunk(choice, {"annotations": join_array(held)})

    def _call(self, event: ToolCallStart) -> dict[str, bytes]:
        """The first piece of a call: all but its arguments."""
        kind = "function" if event.kind == "legacy" and not self.form.has_legacy_calls else event.kind
        self.kinds[event.choice, event.index] = kind
        if kind == "legacy":
            return {"function_call": join_object({"name": encode(event.name), "arguments": b'""'})}
        body, member = ("custom", "input") if kind == "custom" else ("function", "arguments")
        call_id = event.id or made_id(self.start and self.start.id, event.choice, event.index, event.name)
        call = {
            "index": encode(self._wire_index(event.choice, event.index)),
            "id": encode(call_id),
            "type": encode(body),
            body: join_object({"name": encode(event.name), member: b'""'}),
        }
        if event.signature is not None:
            call["extra_content"] = write_signature(event.signature)
        return {"tool_calls": join_array([join_object(call)])}

    def _arguments(self, event: ToolCallDelta) -> dict[str, bytes]:
        """A later piece: the index and more of the arguments."""
        kind = self.kinds.get((event.choice, event.index))
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
            self.kinds[event.choice, event.index] = event.kind
        elif isinstance(event, ReasoningDelta) and event.member is not None:
            self._reasoning_member = event.member


def _audio(event: AudioDelta) -> bytes:
    members = {"id": event.id, "data": event.data, "transcript": event.transcript}
    return join_object({name: encode(text) for name, text in members.items() if text is not None})
