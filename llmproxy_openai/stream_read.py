"""A stream's bytes, read as frames of events."""

from __future__ import annotations

import msgspec

from llmproxy_core.chat import End, Finished, Start, TextDelta, UsageReported
from llmproxy_core.errors import UpstreamGarbage
from llmproxy_core.frame import Frame
from llmproxy_core.sse import Event
from llmproxy_core.wire.envelope import Envelope, read_body
from llmproxy_core.wire.event_reader import EventReader
from llmproxy_core.wire.last_event import is_done
from llmproxy_core.wire.members import garbage
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.chunk import NOWHERE, Chunk, ChunkChoice, ChunkSource, Place
from llmproxy_openai.delta_read import DeltaReader, Found
from llmproxy_openai.facts import NO_ERROR, choice_usage, groq_usage, stream_error
from llmproxy_openai.finish import read_finish
from llmproxy_openai.usage import read_usage

_decode = msgspec.json.Decoder(Chunk).decode
_NULLS = (b"", b"null")


class ChunkReader(EventReader):
    """A StreamReader for the streams of one wire form. UpstreamGarbage for what is no chunk."""

    def __init__(self, dialect: str, api: str) -> None:
        super().__init__()
        self._dialect = dialect
        self._deltas = DeltaReader(Wire(api, own=True, fail=garbage))
        self._finished: set[int] = set()
        self._start: Start | None = None

    def read(self, event: Event) -> list[Frame]:
        if is_done(event.data):
            self.is_over = True
            return [Frame(event.raw, [End()])]
        try:
            chunk = _decode(event.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamGarbage("An event of the provider's stream cannot be understood") from error
        if chunk.object == "error" or bytes(chunk.error) not in NO_ERROR:
            envelope = read_body(event.data) or Envelope("The provider reported an error without saying which.")
            return self.fail(event.raw, stream_error(self._dialect, envelope, event.data, chunk.error))
        return [self._chunk(event, chunk)]

    def _chunk(self, event: Event, chunk: Chunk) -> Frame:
        found = Found()
        usage = bytes(chunk.usage)
        has_usage = usage not in _NULLS
        start = self._start
        if start is None and (chunk.choices or has_usage):  # Azure begins with a chunk of neither, without an id
            created = None if chunk.created is None else int(chunk.created)
            start = Start(chunk.id or "", chunk.model or "", created, chunk.service_tier, chunk.system_fingerprint)
            self._start = self._deltas.start = start
            found.add(start, NOWHERE)
        if start is not None:
            for position, choice in enumerate(chunk.choices or ()):
                self._choice(choice, position, found)
        tier = chunk.service_tier
        counted, place = read_usage(usage, tier) if has_usage else None, Place(-1, "usage")
        x_groq = bytes(chunk.x_groq)
        if not has_usage and x_groq and (counted := groq_usage(x_groq, tier)) is not None:
            place = Place(-1, "x_groq")
        elif not has_usage and (usages := [text for it in chunk.choices or () if (text := bytes(it.usage))]):
            counted, place = choice_usage(usages, tier), Place(0, "usage")
        if counted is not None:
            found.add(UsageReported(counted), place)
        only_usage = chunk.choices == [] and usage.startswith(b"{")
        source = ChunkSource(event.data, found.places, self._deltas.calls, only_usage=only_usage)
        return Frame(event.raw, found.events, source)

    def _choice(self, choice: ChunkChoice, position: int, found: Found) -> None:
        index = choice.index or 0
        logprobs = bytes(choice.logprobs)
        spelled = None if logprobs in _NULLS else logprobs
        if choice.text or (choice.text is not None and spelled is not None):
            found.add(TextDelta(index, choice.text, spelled), Place(position, "text"))
        if choice.delta is not None:
            self._deltas.read(choice.delta, index, position, spelled, found)
        word = choice.finish_reason
        if word and index not in self._finished:  # OpenRouter says it twice
            self._finished.add(index)
            finish = read_finish(word, called=self._deltas.calls.has_calls(index))
            found.add(Finished(index, finish), Place(position, "finish_reason"))
