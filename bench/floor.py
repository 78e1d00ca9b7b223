"""
The least that a relay costs on uvloop: bytes in, the same bytes out, never looked at.

Each connection has an upstream connection of its own. What this costs no relay in Python on uvloop can save.

floor.py PORT UPSTREAM_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

PORT, UPSTREAM_PORT = int(sys.argv[1]), int(sys.argv[2])


class Side(asyncio.Protocol):
    """One of two connections: what it reads the other one writes."""

    transport: asyncio.Transport

    def __init__(self, other: Side | None = None) -> None:
        self.other = other
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio's
        if self.other is None:
            self.connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        self.other.other = self
        self.transport.writelines(self.other.early)

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Side(self), "127.0.0.1", UPSTREAM_PORT)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Side, "127.0.0.1", PORT, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
