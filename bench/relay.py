"""
The simplest relay that aiohttp allows, on uvloop: the yardstick. No policy, no time-out, no log.

relay.py PORT UPSTREAM
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

PORT, UPSTREAM = int(sys.argv[1]), sys.argv[2]
DROPPED = {"host", "content-length", "transfer-encoding", "connection", "keep-alive"}
SESSION = web.AppKey("session", ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    session = request.app[SESSION]
    headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
    url, body = UPSTREAM + request.path_qs, await request.read()
    async with session.request(request.method, url, data=body, headers=headers) as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in DROPPED}
        out = web.StreamResponse(status=answer.status, headers=kept)
        if answer.content_length is not None:
            out.content_length = answer.content_length
        with suppress(ConnectionResetError):  # the client left, as wrk does at its end
            await out.prepare(request)
            async for chunk in answer.content.iter_any():
                await out.write(chunk)
            await out.write_eof()
        return out


async def session_of(app: web.Application) -> AsyncIterator[None]:
    connector, timeout = TCPConnector(limit=0), ClientTimeout(total=None)
    app[SESSION] = ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
    yield
    await app[SESSION].close()


def main() -> None:
    app = web.Application(client_max_size=32 << 20)
    app.cleanup_ctx.append(session_of)
    app.router.add_route("*", "/{tail:.*}", relay)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=PORT, access_log=None, print=None, backlog=4096, loop=loop)


if __name__ == "__main__":
    main()
