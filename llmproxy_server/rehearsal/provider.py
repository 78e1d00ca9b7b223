"""A fake provider: HTTP on loopback, in all protocols of the LLMs that are there, well or failing."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping, Sequence

import attrs

from llmproxy_core.dialect import Dialect
from llmproxy_core.tasks import Tasks
from llmproxy_server.rehearsal.script import (
    ANSWER_S,
    FIRST_TOKEN_S,
    LIMIT_PERIOD_S,
    RETRY_AFTER_S,
    SLOW_ANSWER_S,
    SLOW_FIRST_TOKEN_S,
    Fault,
)
from llmproxy_server.rehearsal.spoken import Spoken, answer, error_of, refused

HOST = "127.0.0.1"
MARK = "traceparent"
"""The header by which a call is known at the provider: it goes through the proxy as it is where nobody traces."""
_LONGEST_HEAD = 1 << 20
_MARK = re.compile(r"00-([0-9a-f]{32})-.*")


@attrs.frozen
class _Asked:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def call(self) -> int:
        """The number of the client's call that it was made for; 0 for calls of a processor's own."""
        found = _MARK.fullmatch(self.headers.get(MARK, ""))
        return 0 if found is None else int(found[1], 16)


class FakeProvider:
    """
    One provider, as its clients see it: all that is at one origin fails together.

    What it does depends on its *fault*, the number of the client's call and how often it has seen that call, and on
    the time since the phase began: never on chance.
    """

    def __init__(self, name: str, dialects: Sequence[Dialect], *, refused_key: str | None, tasks: Tasks) -> None:
        """*refused_key* is the one of its callers' keys that it may come to refuse; None: they have none."""
        self.name = name
        self.refused_key = refused_key
        self.tries = 0
        """Model calls of the present phase that reached it, or were to."""
        self._dialects = dialects
        self._tasks = tasks
        self._fault: Fault | None = None
        self._since_s = 0.0
        self._seen: dict[int, int] = {}
        self._server: asyncio.Server | None = None
        self._nobody: socket.socket | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; and keep a port where nobody does."""
        self._server = await asyncio.start_server(self._connected, HOST, 0, limit=_LONGEST_HEAD)
        self._nobody = socket.socket()
        self._nobody.bind((HOST, 0))

    async def aclose(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._nobody is not None:
            self._nobody.close()

    def begin(self, fault: Fault | None) -> None:
        """A phase begins in which it has *fault*."""
        self._fault, self._since_s = fault, asyncio.get_running_loop().time()
        self.tries = 0
        self._seen.clear()

    def where(self, method: str) -> str:
        """Where a call is to go now, `host:port`: while it refuses connections, where nobody listens."""
        assert self._server is not None
        assert self._nobody is not None
        if self._fault is Fault.REFUSES:
            self.tries += method == "POST"  # what never arrives cannot be counted there
            return f"{HOST}:{self._nobody.getsockname()[1]}"
        return f"{HOST}:{self._server.sockets[0].getsockname()[1]}"

    # -- connections ---------------------------------------------------------------------------------------------

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _ = self._tasks.start(self._serve(reader, writer), name=f"fake {self.name}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._answer(await _read(reader), reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever called has gone
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, asked: _Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer *asked*; gives whether the connection may be used again."""
        spoken = answer(self._dialects, asked.method, asked.target, asked.body)
        fault = self._fault
        if spoken.is_call:
            self.tries += 1
            self._seen[asked.call] = self._seen.get(asked.call, 0) + 1
        if fault in (Fault.LIMITS, Fault.DOWN, Fault.KEY) and self._refuses(fault, asked):
            spoken = refused(self._dialects, asked.method, asked.target, error_of(fault))
            writer.write(_head(spoken, retry_after_s=RETRY_AFTER_S if fault is Fault.LIMITS else None))
            writer.write(b"".join(spoken.pieces))
            return True
        if fault is Fault.SILENT:
            return await self._fall_silent(asked, spoken, reader, writer)
        slow = fault is Fault.SLOW and spoken.is_call
        await asyncio.sleep(SLOW_FIRST_TOKEN_S if slow else FIRST_TOKEN_S)
        if fault is Fault.CUTS and spoken.is_call and self._seen[asked.call] == 1:
            await _cut(asked, spoken, writer)
            return False
        writer.write(_head(spoken))
        pause_s = (SLOW_ANSWER_S if slow else ANSWER_S) / len(spoken.pieces)
        for number, piece in enumerate(spoken.pieces):
            if number:
                await asyncio.sleep(pause_s)
            writer.write(_framed(piece, spoken))
            await writer.drain()
        if spoken.is_stream:
            writer.write(b"0\r\n\r\n")
        return True

    def _refuses(self, fault: Fault, asked: _Asked) -> bool:
        if fault is Fault.LIMITS:
            return (asyncio.get_running_loop().time() - self._since_s) % LIMIT_PERIOD_S < RETRY_AFTER_S
        if fault is Fault.KEY:
            return self.refused_key is not None and any(self.refused_key in it for it in asked.headers.values())
        return True

    async def _fall_silent(
        self, asked: _Asked, spoken: Spoken, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Say nothing; of every second stream, nothing after its first token. Until the caller has left."""
        if spoken.is_stream and _breaks_late(asked):
            await asyncio.sleep(FIRST_TOKEN_S)
            writer.write(_head(spoken) + b"".join(_framed(it, spoken) for it in spoken.pieces[:2]))
        _ = await reader.read(1)
        return False


def _breaks_late(asked: _Asked) -> bool:
    """Whether a stream that breaks does so behind its first token: one of two, scattered over all kinds of calls."""
    return asked.call * 0x9E3779B1 >> 16 & 1 == 1


async def _cut(asked: _Asked, spoken: Spoken, writer: asyncio.StreamWriter) -> None:
    """Begin to answer, and break off: a stream before its first token, or in the middle of its text."""
    writer.write(_head(spoken))
    if not spoken.is_stream:
        writer.write(spoken.pieces[0][: len(spoken.pieces[0]) // 2])
    elif _breaks_late(asked):
        for piece in spoken.pieces[: len(spoken.pieces) // 2]:
            writer.write(_framed(piece, spoken))
    await writer.drain()
    await asyncio.sleep(ANSWER_S / 2)  # what was written is to be read: a reset would overtake it


# -- the bytes of HTTP -----------------------------------------------------------------------------------------------


async def _read(reader: asyncio.StreamReader) -> _Asked:
    """The next request. It comes from our own transport, which writes no other than this plain form."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head[:-4].split("\r\n")
    method, target, _ = line.split(" ")
    pairs = (field.partition(":") for field in fields)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return _Asked(method, target, headers, body)


def _head(spoken: Spoken, *, retry_after_s: int | None = None) -> bytes:
    length = "transfer-encoding: chunked" if spoken.is_stream else f"content-length: {sum(map(len, spoken.pieces))}"
    lines = [
        f"HTTP/1.1 {spoken.status} -",
        f"content-type: {spoken.content_type}",
        length,
        *([] if retry_after_s is None else [f"retry-after: {retry_after_s}"]),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _framed(piece: bytes, spoken: Spoken) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece) if spoken.is_stream else piece
