"""How an LLM of any protocol answers, well and badly: scripts for the fake upstream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from llmproxy_core.chat import ChatEvent, End, Finished, Start, UsageReported
from llmproxy_core.dialect import StreamWriter
from llmproxy_core.errors import UpstreamError
from llmproxy_core.reply_events import Assembler
from llmproxy_core.usage import Usage
from tests import script
from tests.script import Chunk, Cut, Head, Step
from tests.speaking import Speaker

_START = Start("made-1", "a-model", 1_700_000_000)
_USAGE = Usage(9, 3)
_FAULT = UpstreamError("The model fell over", status=500, code="server_error")


@attrs.frozen
class Answering:
    """The answers of an LLM that speaks as *speaker* reads; *said* are the events of its choices."""

    speaker: Speaker
    stream: bool
    said: Sequence[ChatEvent]

    def complete(self) -> list[Step]:
        """The whole answer."""
        if not self.stream:
            body = self._body()
            return [_json_head(len(body)), *_split(body), script.End()]
        return [self._head(), *self._pieces(self._writer(), self._events()), script.End()]

    def begun(self) -> list[Step]:
        """The beginning of a stream."""
        return [self._head(), *self._pieces(self._writer(), self._events()[:2])]

    def cut(self) -> list[Step]:
        """What comes before the connection breaks: of a stream all that is said."""
        if not self.stream:
            body = self._body()
            return [_json_head(len(body)), Chunk(body[:-9]), Cut()]
        return [self._head(), *self._pieces(self._writer(), self._unfinished()), Cut()]

    def unfinished(self) -> list[Step]:
        """A stream that says all, and ends properly without having told that it is complete."""
        return [self._head(), *self._pieces(self._writer(), self._unfinished()), script.End()]

    def error(self) -> list[Step]:
        """An error before anything is said."""
        body = self.speaker.dialect.write_error(_FAULT, "made-1")
        return [_json_head(len(body), 500), Chunk(body), script.End()]

    def error_midway(self) -> list[Step]:
        """An error of status 200: of a stream after all is said."""
        dialect = self.speaker.dialect
        if not self.stream:
            body = dialect.write_error(_FAULT, "made-1")
            return [_json_head(len(body)), Chunk(body), script.End()]
        writer = self._writer()
        pieces = list(self._pieces(writer, self._unfinished()))
        error = dialect.error_event(_FAULT, "made-1", self.speaker.api(stream=True), writer)
        return [self._head(), *pieces, Chunk(error), script.End()]

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _events(self) -> list[ChatEvent]:
        return [_START, *self.said, UsageReported(_USAGE), End()]

    def _unfinished(self) -> list[ChatEvent]:
        return [_START, *(event for event in self.said if not isinstance(event, Finished))]

    def _body(self) -> bytes:
        assembler = Assembler()
        assembler.feed(self._events())
        return self.speaker.dialect.write_reply(self.speaker.api(stream=False), assembler.reply())

    def _writer(self) -> StreamWriter:
        return self.speaker.dialect.writer(self.speaker.api(stream=True), usage=True)

    def _head(self) -> Head:
        return Head(headers={"content-type": self.speaker.api(stream=True).stream_type})

    @staticmethod
    def _pieces(writer: StreamWriter, events: Sequence[ChatEvent]) -> Iterator[Chunk]:
        """Each event in two pieces."""
        for event in events:
            if data := writer.write([event], None):
                yield from _split(data)


def _json_head(length: int, status: int = 200) -> Head:
    return Head(status, {"content-type": "application/json"}, length)


def _split(data: bytes) -> list[Chunk]:
    middle = len(data) // 2
    return [Chunk(piece) for piece in (data[:middle], data[middle:]) if piece]
