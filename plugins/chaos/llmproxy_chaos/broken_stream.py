"""A stream in front of another one, that breaks where its course says."""

from __future__ import annotations

from collections import deque

from llmproxy_chaos.course import Course
from llmproxy_chaos.strike import Strike
from llmproxy_core import Attempt, End, Exchange, PulledBody, Stream, StreamReader, Tasks


class BrokenBody:
    """
    The bytes of *source*, event by event, with the strikes of *course* between them.

    They come at the bytes, below everything that reads the answer: whoever waits for its first token meets them as it
    would meet a provider's. Of an opaque stream, which has no events, bytes are counted instead of characters.
    """

    def __init__(self, source: Stream, course: Course) -> None:
        self._source = source
        self._course = course
        self._reader: StreamReader | None = None if source.api is None else source.dialect.reader(source.api)
        self._steps: deque[bytes | Strike] = deque()
        """What is read, with what comes before each piece of it."""
        self._ended = False

    async def read(self) -> bytes:
        """The next bytes, b"" at the end; an UpstreamError of the source's own, or of a strike."""
        while True:
            while self._steps:
                step = self._steps.popleft()
                if isinstance(step, bytes):
                    return step
                # It is taken before the wait: whoever gives up waiting, and reads on, is not struck again.
                await self._course.befall(step)
            if self._ended:
                return b""
            await self._read_on()

    async def _read_on(self) -> None:
        data = await self._source.read()
        reader = self._reader
        if reader is None:
            self._steps += [*self._course.passing(len(data)), *([data] if data else [])]
        else:
            for frame in reader.feed(data) if data else reader.end():
                self._steps += [*self._course.meets(frame.events), frame.raw]
        if not data:
            self._ended = True
            self._steps += self._course.rest()

    def close(self) -> None:
        self._source.finish(End.ABANDONED)

    def release(self) -> None:
        self._source.finish(End.COMPLETED)


def broken(source: Stream, course: Course, exchange: Exchange, attempt: Attempt | None, tasks: Tasks) -> Stream:
    """
    A response that stands for *source*, which it ends with itself. *attempt* is the call that *source* answers.

    What the answer used and cost is told by the one that is read, so *source* is not billed, and its subscriptions
    move; its callbacks stay. The attempt is told last by the one in front: how the answer ended is known to that alone.
    """
    body = BrokenBody(source, course)
    stream = Stream(
        exchange,
        PulledBody(body.read, tasks=tasks, close=body.close, release=body.release),
        dialect=source.dialect,
        api=source.api,
        status=source.status,
        headers=source.headers,
        content_type=source.content_type,
        llm=source.llm,
        price=source.price,
        billed=source.billed,
        redact=source.redact,
    )
    stream.shown_model, stream.tokenizer = source.shown_model, source.tokenizer
    stream.max_bytes = source.max_bytes
    stream.subscriptions, source.subscriptions = source.subscriptions, []
    source.billed, source.price = False, None
    if attempt is not None:
        stream.on_finish(attempt.answered)
    return stream
