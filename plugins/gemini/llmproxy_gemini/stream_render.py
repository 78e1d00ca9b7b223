"""Events of another protocol, or of a filter, written as chunks of our own making."""

from __future__ import annotations

import attrs

from llmproxy_core import Carried, Usage, seal
from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    Citation,
    CitationAdded,
    Finish,
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
from llmproxy_core.wire import ObjectPieces, encode, join_array, join_object, text_tool
from llmproxy_gemini.apis import FORM, NAME
from llmproxy_gemini.call_ids import is_made, new_id
from llmproxy_gemini.citations import write_citations
from llmproxy_gemini.finish import write_finish
from llmproxy_gemini.logprobs import write_logprobs
from llmproxy_gemini.reply_write import content, head
from llmproxy_gemini.response_object import write_arguments
from llmproxy_gemini.seals import signature_for_client
from llmproxy_gemini.usage import write_usage


class _Call:
    """A call whose arguments still come."""

    __slots__ = ("arguments", "start")

    def __init__(self, start: ToolCallStart) -> None:
        self.start = start
        self.arguments = ObjectPieces()

    def part(self) -> bytes:
        start = self.start
        said = self.arguments.text
        is_text = start.kind == "custom"
        name = text_tool.sent_name(start.name) if is_text else start.name
        call = {"name": encode(name), "args": text_tool.write_text(said) if is_text else write_arguments(said)}
        if not is_made(start.id):
            call["id"] = encode(start.id)
        members = {"functionCall": join_object(call)}
        if start.signature is not None:
            members["thoughtSignature"] = encode(start.signature)
        return join_object(members)


class _Candidate:
    """One candidate of the stream: what waits for its end."""

    __slots__ = ("_begin", "_length", "_thinker", "calls", "citations", "finish", "grown", "text")

    def __init__(self) -> None:
        self._thinker: str | None = None
        self.calls: dict[int, _Call] = {}
        self.grown: set[int] = set()
        """The calls that were given arguments since it was last asked which are whole."""
        self.citations: list[Citation] = []
        self.finish: Finish | None = None
        self.text: list[str] = []
        self._begin = 0
        """Where in the text the part begins that is being said: citations count in it."""
        self._length = 0

    def note(self, event: ChatEvent) -> None:
        """Take what is said, a source that is named, or what ends a part of the text."""
        match event:
            case TextDelta(text=text):
                self.text.append(text)
                self._length += len(text)
            case CitationAdded(citation=citation):
                self.citations.append(citation.moved(self._begin, self._length - self._begin))
            case _:
                self._begin = self._length

    def seal(self, event: ChatEvent | None) -> list[bytes]:
        """The part that ends thinking which was not signed, where *event* (None: the end) is not more of it."""
        if isinstance(event, ReasoningDelta):
            is_signed = event.signature is not None or event.encrypted is not None or event.redacted is not None
            self._thinker = None if is_signed or event.provider in {None, NAME} else event.provider
            return []
        thinker, self._thinker = self._thinker, None
        return [] if thinker is None else [_thought_part("", seal(Carried(thinker)))]


class ChunkRenderer:
    """
    Makes chunks.

    Calls go out whole, since Gemini's clients know no pieces of them; finishes, sources and the usage wait for the
    end: the last chunk has them all.
    """

    __slots__ = ("_candidates", "_finished", "_head", "_is_native", "_usage", "start")

    def __init__(self) -> None:
        self.start: Start | None = None
        self._head: tuple[Start, dict[str, bytes]] | None = None
        self._usage: Usage | None = None
        self._candidates: dict[int, _Candidate] = {}
        self._finished: set[int] = set()
        self._is_native = False

    def note(self, event: ChatEvent) -> None:
        """Remember what went out in a chunk of the provider's own."""
        self._is_native = True
        if isinstance(event, Start):
            self.start = event
        elif isinstance(event, UsageReported):
            self._usage = event.usage
        elif isinstance(event, Finished):
            self._finished.add(event.choice)
        elif isinstance(event, TextDelta):
            self._candidate(event.choice).note(event)

    def _candidate(self, choice: int) -> _Candidate:
        if (found := self._candidates.get(choice)) is None:
            found = self._candidates[choice] = _Candidate()
        return found

    def render(self, event: ChatEvent) -> list[bytes]:
        """The chunks for *event*, as JSON; none where this protocol says nothing, or waits."""
        match event:
            case Start():
                self.start = event
            case UsageReported(usage=usage):
                self._usage = usage
            case Finished(choice=choice, finish=finish):
                if choice not in self._finished:
                    self._candidate(choice).finish = finish
            case CitationAdded(choice=choice):
                self._candidate(choice).note(event)
            case ToolCallStart(choice=choice, index=index):
                self._candidate(choice).note(event)
                self._candidate(choice).calls[index] = _Call(event)
            case ToolCallDelta(choice=choice, index=index, arguments=arguments):
                candidate = self._candidate(choice)
                if (call := candidate.calls.get(index)) is not None:
                    call.arguments.add(arguments)
                    candidate.grown.add(index)
            case AudioDelta(transcript=str(text), data=str()) if text:
                heard = AudioDelta(event.choice, transcript=text)
                return [*self._said(heard), *self._said(attrs.evolve(event, transcript=None))]
            case _:
                return self._said(event)
        return []

    def _said(self, event: ChatEvent) -> list[bytes]:
        choice = getattr(event, "choice", None)
        if choice is None:
            return []
        candidate = self._candidate(choice)
        candidate.note(event)
        if (part := _part(event)) is None:
            return []
        calls = [*candidate.seal(event), *self._complete(candidate)]
        members: dict[str, bytes] = {}
        if isinstance(event, TextDelta) and event.logprobs is not None:
            logprobs = write_logprobs(event.logprobs)
            members = {} if logprobs is None else {"logprobsResult": logprobs}
        return [self._chunk([_candidate_text(choice, [*calls, part], members)])]

    @staticmethod
    def _complete(candidate: _Candidate) -> list[bytes]:
        """The calls whose arguments are an object by now, to stand before what follows; others wait for theirs."""
        if not candidate.grown:
            return []
        calls, grown = candidate.calls, sorted(candidate.grown)
        candidate.grown.clear()
        return [calls.pop(index).part() for index in grown if calls[index].arguments.is_whole()]

    @staticmethod
    def _rest(candidate: _Candidate) -> list[bytes]:
        """What has not gone out: the seal of thinking, and calls."""
        calls, candidate.calls = candidate.calls, {}
        candidate.grown.clear()
        return [*candidate.seal(None), *(calls[index].part() for index in sorted(calls))]

    def calls(self) -> list[bytes]:
        """A chunk for the calls that are complete: in a stream of the provider's own they must not wait for its end."""
        found = {choice: parts for choice, it in self._candidates.items() if (parts := self._complete(it))}
        return [self._chunk([_candidate_text(choice, parts, {})]) for choice, parts in found.items()]

    def last(self) -> list[bytes]:
        """The chunk that ends the stream; none when the provider's own has done so."""
        waiting = {
            choice: candidate
            for choice, candidate in self._candidates.items()
            if choice not in self._finished or candidate.calls or candidate.citations
        }
        if not waiting and (self._is_native or self._finished):
            return []
        texts = [self._ended(choice, waiting[choice]) for choice in sorted(waiting)]
        return [self._chunk(texts or [self._ended(0, _Candidate())])]

    def _ended(self, choice: int, candidate: _Candidate) -> bytes:
        members: dict[str, bytes] = {}
        if choice not in self._finished:
            self._finished.add(choice)
            members["finishReason"] = encode(write_finish(candidate.finish))
            if candidate.finish is not None and candidate.finish.detail is not None:
                members["finishMessage"] = encode(candidate.finish.detail)
        if candidate.citations:
            members["groundingMetadata"] = write_citations(candidate.citations, "".join(candidate.text))
        return _candidate_text(choice, self._rest(candidate), members)

    def _chunk(self, candidates: list[bytes]) -> bytes:
        members = {"candidates": join_array(candidates)}
        if self._usage is not None:
            members["usageMetadata"] = write_usage(self._usage)
        return join_object(members | self._said_of_all())

    def _said_of_all(self) -> dict[str, bytes]:
        """What each chunk repeats."""
        start = self.start
        if start is None or not start.id:
            start = start or Start("", "")
            start = self.start = Start(new_id(), start.model, start.created)
        if self._head is None or self._head[0] is not start:
            self._head = start, head(start.id, start.model, start.created)
        return self._head[1]


def _candidate_text(choice: int, parts: list[bytes], members: dict[str, bytes]) -> bytes:
    return join_object({"content": content(parts)} | members | {"index": encode(choice)})


def _part(event: ChatEvent) -> bytes | None:
    """What *event* says as a part; None when it says nothing here."""
    match event:
        case TextDelta(text=text) if text or event.signature is not None or event.logprobs is not None:
            signed = {} if event.signature is None else {"thoughtSignature": encode(event.signature)}
            return join_object({"text": encode(text)} | signed)
        case RefusalDelta(text=text) if text:
            return join_object({"text": encode(text)})
        case ReasoningDelta():
            return _thought(event)
        case AudioDelta(data=str(data)) if data:
            blob = {"mimeType": b'"audio/L16"', "data": encode(data)}
            return join_object({"inlineData": join_object(blob)})
        case AudioDelta(transcript=str(text)) if text:
            return join_object({"text": encode(text)})
        case OpaqueEvent(api=api, raw=raw) if api == FORM:
            return raw
        case _:
            return None


def _thought(event: ReasoningDelta) -> bytes | None:
    """A piece of thinking; its seal, if it needs one, comes with the signature or at its end."""
    if event.signature is None and event.redacted is None and event.encrypted is None:
        return _thought_part(event.text, None) if event.text else None
    signature = signature_for_client(
        signature=event.signature,
        redacted=event.redacted,
        encrypted=event.encrypted,
        provider=event.provider,
        id=event.id,
    )
    return _thought_part(event.text, signature)


def _thought_part(text: str, signature: str | None) -> bytes:
    signed = {} if signature is None else {"thoughtSignature": encode(signature)}
    return join_object({"text": encode(text), "thought": b"true"} | signed)
