"""A stream's bytes, read as frames of events."""

from __future__ import annotations

from llmproxy_core import Frame, UpstreamError, UpstreamGarbage
from llmproxy_core.chat import End, Finished, Start, UsageReported
from llmproxy_core.wire import Event, EventReader, Wire, failed, garbage
from llmproxy_gemini.apis import FORM
from llmproxy_gemini.array_split import MAX_ELEMENT_BYTES, ArraySplitter
from llmproxy_gemini.candidate_read import CandidateReader, Found
from llmproxy_gemini.chunk import NULLS, Chunk, decode_candidate, decode_chunk, error_in
from llmproxy_gemini.finish import blocked
from llmproxy_gemini.stream_source import NOWHERE, ChunkSource, MergedSource
from llmproxy_gemini.usage import read_usage


class ChunkReader:
    """
    Chunks of a stream to frames.

    The protocol has no terminal event: the answer is complete when the body ends and each candidate has finished.
    """

    def __init__(self) -> None:
        self._wire = Wire(FORM, own=True, fail=garbage)
        self._start: Start | None = None
        self._candidates: dict[int, CandidateReader] = {}
        self._open: set[int] = set()  # those in whose call arguments are missing
        self._is_blocked = False
        self._held: list[Frame] = []
        self.is_over = False

    def frame(self, raw: bytes, data: bytes, before: bytes) -> list[Frame]:
        """
        The frames that the chunk *data* completes; chunks that hold a call in pieces become one.

        UpstreamGarbage for what is no chunk.
        """
        chunk = decode_chunk(data)
        if (error := error_in(chunk, data)) is not None:
            return self.failed(raw, error)
        self._held.append(self._frame(raw, chunk, data, before))
        return [] if self._open else self._release()

    def failed(self, raw: bytes, error: UpstreamError) -> list[Frame]:
        """The frames of a stream that ends with *error*."""
        self.is_over = True
        return [*self._release(), Frame(raw, [failed(error)])]

    def _release(self) -> list[Frame]:
        held, self._held = self._held, []
        if len(held) < 2:
            return held
        first = held[0].source
        before = first.before if isinstance(first, ChunkSource) else b""
        events = [event for frame in held for event in frame.events]
        return [Frame(b"".join([frame.raw for frame in held]), events, MergedSource(before))]

    def _frame(self, raw: bytes, chunk: Chunk, data: bytes, before: bytes) -> Frame:
        found = Found()
        if self._start is None:
            self._start = Start(chunk.response_id or "", chunk.model_version or "", chunk.created)
            found.add(self._start, NOWHERE)
        usage = None if bytes(chunk.usage_metadata) in NULLS else read_usage(bytes(chunk.usage_metadata))
        if usage is not None:
            found.add(UsageReported(usage), NOWHERE)
        echoes = self._candidates_of(chunk, found)
        if not chunk.candidates and chunk.blocked is not None and not self._is_blocked:
            self._is_blocked = True
            feedback = chunk.prompt_feedback
            message = None if feedback is None else feedback.block_reason_message
            found.add(Finished(0, blocked(chunk.blocked, message)), NOWHERE)
        return Frame(raw, found.events, ChunkSource(data, found.places, before, echoes=echoes))

    def _candidates_of(self, chunk: Chunk, found: Found) -> bool:
        """Read all candidates; whether one of them repeats what is said."""
        echoes = False
        for position, text in enumerate(chunk.candidates or ()):
            candidate = decode_candidate(bytes(text))
            index = position if candidate.index is None else candidate.index
            if (reader := self._candidates.get(index)) is None:
                assert self._start is not None
                reader = self._candidates[index] = CandidateReader(index, self._start.id or None, self._wire)
            reader.read(candidate, position, found)
            if reader.is_open:
                self._open.add(index)
            elif self._open:
                self._open.discard(index)
            said = (candidate.grounding_metadata, candidate.citation_metadata, candidate.logprobs_result)
            echoes = echoes or any(bytes(raw) not in NULLS for raw in said)
        return echoes

    def end(self, raw: bytes = b"") -> list[Frame]:
        """The body has ended, with *raw*: the End, if the answer is complete."""
        if self.is_over:
            return []
        self.is_over = True
        finished = [each.is_finished for each in self._candidates.values()]
        is_whole = all(finished) if finished else self._is_blocked
        return [*self._release(), *([Frame(raw, [End()])] if is_whole else [])]


class ChunkEventReader(EventReader):
    """A StreamReader for streams of events."""

    def __init__(self) -> None:
        super().__init__(MAX_ELEMENT_BYTES)
        self._chunks = ChunkReader()

    def read(self, event: Event) -> list[Frame]:
        frames = self._chunks.frame(event.raw, event.data, b"")
        self.is_over = self._chunks.is_over
        return frames

    def fail(self, raw: bytes, error: UpstreamError) -> list[Frame]:
        self.is_over = True
        return self._chunks.failed(raw, error)

    def close(self) -> list[Frame]:
        """The End."""
        return self._chunks.end()


class ArrayReader:
    """A StreamReader for streams that are one array."""

    def __init__(self) -> None:
        self._splitter = ArraySplitter()
        self._chunks = ChunkReader()
        self._closing = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames of the elements that *data* completes; none after an error."""
        frames: list[Frame] = []
        for element in self._splitter.feed(data):
            if self._chunks.is_over:
                break
            if not element.data:
                self._closing += element.before
                continue
            raw = element.before + element.data
            try:
                frames += self._chunks.frame(raw, element.data, element.before)
            except UpstreamGarbage as error:
                if not frames:
                    raise
                frames += self._chunks.failed(raw, error)
        return frames

    def end(self) -> list[Frame]:
        """The End, if the array was closed."""
        return self._chunks.end(self._closing) if self._splitter.is_closed else []
