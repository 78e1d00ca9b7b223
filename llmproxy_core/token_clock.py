"""A clock for the silence between the tokens of a stream: pings and empty events do not stop it."""

from __future__ import annotations

import asyncio
from math import inf

from llmproxy_core.body import Body, PulledBody
from llmproxy_core.dialect import StreamReader
from llmproxy_core.errors import ProxyError, UpstreamTimeout
from llmproxy_core.reply_events import answers
from llmproxy_core.tasks import Tasks


class TokenClock:
    """
    Reads *body*; UpstreamTimeout, the body closed, when after a token no other comes within *most_s* seconds.

    Every event is decoded for it, by *reader*, and once more by whoever reads the answer: where nobody asks for this
    clock there is none. The wait for the first token is no business of it.
    """

    def __init__(self, body: Body, reader: StreamReader, most_s: float) -> None:
        self._body = body
        self._reader: StreamReader | None = reader
        self._most_s = most_s
        self._due_s = inf

    async def read(self) -> bytes:
        """The next bytes, b"" at the end."""
        if self._due_s == inf:
            data = await self._body.read()
        else:
            limit = asyncio.timeout_at(self._due_s)
            try:
                async with limit:
                    data = await self._body.read()
            except TimeoutError:
                if not limit.expired():
                    raise
                self._body.close()
                message = f"No other token came within {self._most_s:g} seconds"
                raise UpstreamTimeout(message, code="upstream_timeout_between_tokens") from None
        if data and self._has_token(data):
            self._due_s = asyncio.get_running_loop().time() + self._most_s
        return data

    def _has_token(self, data: bytes) -> bool:
        if self._reader is None:
            return True
        try:
            return any(answers(event) for frame in self._reader.feed(data) for event in frame.events)
        except ProxyError:  # what cannot be read is told by whoever reads the answer
            self._reader = None
            return True


def clocked(body: Body, reader: StreamReader, most_s: float, tasks: Tasks) -> Body:
    """*body* under that clock."""
    clock = TokenClock(body, reader, most_s)
    return PulledBody(clock.read, tasks=tasks, close=body.close, release=body.release)
