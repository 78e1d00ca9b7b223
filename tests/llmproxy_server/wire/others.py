"""The two servers that ours is held against: a real nginx, and a bare aiohttp. Both with the bounds that ours has."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web

from tests.llmproxy_server.wire.rows import MAX_BODY, MAX_FIELDS, MAX_HEAD
from tests.llmproxy_server.wire.strict import Malformed, Request, read
from tests.llmproxy_server.wire.witness import Witness

WAIT_S = 10
_CONF = """
daemon off;
master_process off;
error_log /dev/null;
pid {folder}/pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_header_buffer_size {head};
    large_client_header_buffers 4 {head};
    client_max_body_size {body};
    client_body_buffer_size 1m;
    client_header_timeout 1s;
    client_body_timeout 1s;
    keepalive_timeout 1s;
    lingering_timeout 1s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_ignore_client_abort on;
        }}
    }}
}}
"""


class Other:
    """A server, and the requests that it took for such."""

    def __init__(self, port: int, requests: list[Request]) -> None:
        self.port = port
        self._requests = requests

    async def tell(self, data: bytes) -> list[Request]:
        """
        Send *data* and a FIN, and read until the server closes; what it took.

        Well-formed requests come each in a write of its own: aiohttp drops one when what follows in the same read is
        malformed, which says nothing of how it reads it.
        """
        before = len(self._requests)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in _pieces(data):
                writer.write(piece)
                for _ in range(3):
                    await asyncio.sleep(0)
            with suppress(OSError):  # it did not read all that it refused
                writer.write_eof()
                await asyncio.wait_for(reader.read(), WAIT_S)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return self._requests[before:]


def _pieces(data: bytes) -> Iterator[bytes]:
    with suppress(Malformed):
        while data and (found := read(data)) is not None:
            yield data[: found[1]]
            data = data[found[1] :]
    if data:
        yield data


@asynccontextmanager
async def nginx(program: str, folder: Path) -> AsyncIterator[Other]:
    """nginx as a proxy before an upstream that takes whatever it writes."""
    async with Witness(_as_nginx_writes) as upstream:
        port = _free_port()
        conf = folder / "nginx.conf"
        conf.write_text(
            _CONF.format(folder=folder, head=MAX_HEAD, body=MAX_BODY, port=port, upstream=upstream.port),
        )
        process = await asyncio.create_subprocess_exec(
            program, "-p", str(folder), "-c", str(conf), "-e", "stderr", stderr=asyncio.subprocess.PIPE
        )
        try:
            await _accepts(port, process)
            yield Other(port, upstream.requests)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait_for(process.communicate(), WAIT_S)


def _as_nginx_writes(data: bytes) -> tuple[Request, int] | None:
    """What nginx sent on: framed as it always does it, with fields that it may have let through."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    line, _, fields = head.decode("latin-1").partition("\r\n")
    found = re.search(r"^content-length: ([0-9]+)\r?$", fields, re.IGNORECASE | re.MULTILINE)
    length = int(found[1]) if found else 0
    if len(rest) < length:
        return None
    method, _, target = line.removesuffix(" HTTP/1.1").partition(" ")
    return Request(method, target, "1.1", (), rest[:length]), len(head) + 4 + length


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


async def _accepts(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while True:
            assert process.returncode is None, (await process.communicate())[1]
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)  # a foreign process tells nobody that it listens
            else:
                writer.close()
                await writer.wait_closed()
                return


@asynccontextmanager
async def bare_aiohttp() -> AsyncIterator[Other]:
    """aiohttp as whoever makes a server of it has it: a handler that reads the body and says yes."""
    requests: list[Request] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        requests.append(Request(request.method, request.raw_path, "", (), body))
        return web.Response(text="yes")

    server = web.Server(
        handle,
        access_log=None,
        keepalive_timeout=1,
        lingering_time=0.5,
        max_line_size=MAX_HEAD,
        max_field_size=MAX_HEAD,
        max_headers=MAX_FIELDS,
    )
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield Other(runner.addresses[0][1], requests)
    finally:
        await runner.cleanup()
