"""The demo LLM's answers as streams: in pieces, at a pace, and ending when nobody wants them any more."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Iterator

from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    Choice,
    End,
    Finished,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.errors import UpstreamTimeout

_PIECE = re.compile(r"\s*\S{1,12}\s*|\s+")


class Paced:
    """The bytes of a stream, piece by piece; `close` ends a wait at once."""

    def __init__(self, chunks: Iterable[bytes], *, delay_s: float, stall_s: float | None = None) -> None:
        """
        *delay_s* passes before each chunk but the first.

        With *stall_s* nothing comes after the chunks, not even the end, and after so many seconds the same error that
        a real upstream's silence would cause.
        """
        self._chunks = iter(chunks)
        self._delay_s = delay_s
        self._stall_s = stall_s
        self._begun = False
        self._closed = asyncio.Event()

    async def read(self) -> bytes:
        """The next chunk; b"" at the end, and once it is closed."""
        chunk = next(self._chunks, b"")
        if not chunk and self._stall_s is not None:
            await self._wait(self._stall_s)
            if not self._closed.is_set():
                raise stalled(self._stall_s)
        elif self._begun:
            await self._wait(self._delay_s)
        self._begun = True
        return b"" if self._closed.is_set() else chunk

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)  # others get their turn between two pieces
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def close(self) -> None:
        self._closed.set()


def stalled(stall_s: float) -> UpstreamTimeout:
    """What a silence of *stall_s* seconds ends with."""
    return UpstreamTimeout(f"The demo sent nothing for {stall_s:g} s, as asked", code="upstream_timeout_idle")


def steps(reply: ChatReply) -> Iterator[list[ChatEvent]]:
    """*reply* as a stream: the events of one piece each, the choices in turn, the last step with the ends and usage."""
    begin: list[ChatEvent] = [Start(reply.id, reply.model, reply.created)]
    tracks = [_deltas(choice) for choice in reply.choices]
    while tracks:
        left = []
        for track in tracks:
            if events := next(track, None):
                yield begin + events
                begin = []
                left.append(track)
        tracks = left
    ends: list[ChatEvent] = [Finished(each.index, each.finish) for each in reply.choices if each.finish is not None]
    yield [*begin, *ends, *([UsageReported(reply.usage)] if reply.usage else []), End()]


def _deltas(choice: Choice) -> Iterator[list[ChatEvent]]:
    for part in choice.content:
        if isinstance(part, TextPart):
            for piece in pieces(part.text):
                yield [TextDelta(choice.index, piece)]
        elif isinstance(part, ToolCall):
            yield [ToolCallStart(choice.index, 0, part.id, part.name, part.kind)]
            for piece in pieces(part.arguments):
                yield [ToolCallDelta(choice.index, 0, piece)]


def pieces(text: str) -> list[str]:
    """*text* in words with the white space after them, long words in several pieces."""
    return _PIECE.findall(text)
