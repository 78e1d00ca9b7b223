"""New connections: names, several addresses, what speaks before it is asked."""

import asyncio
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from llmproxy_core.errors import UpstreamConnectError, UpstreamError, UpstreamGarbage
from llmproxy_core.services import Pool
from llmproxy_server.wire.upstream import WireTransport
from llmproxy_server.wire.upstream_connect import trusting_the_system
from tests.llmproxy_server.transporting import OFF, call, get, post, rest, through, transporting, until
from tests.upstream import Upstream, refusing_url, reply, silent_url


@pytest.fixture(autouse=True)
def over_the_wire() -> Iterator[None]:
    with through(WireTransport):
        yield


class Looked:
    """Look-ups of names, answered by *addresses*; held until `go_on`."""

    def __init__(self, ask: Callable[..., Awaitable[Sequence[Any]]], *ports: int) -> None:
        self.ask = ask
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.ports = ports
        self.failing = False

    async def __call__(self, host: str, port: int, **how: Any) -> Sequence[Any]:
        if not host.endswith(".test"):
            return await self.ask(host, port, **how)
        assert how["type"] is socket.SOCK_STREAM
        self.asked.append(host)
        await self.go_on.wait()
        if self.failing:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in self.ports]


def look_up(monkeypatch: pytest.MonkeyPatch, *ports: int) -> Looked:
    """No name can be relied on in a test: the loop's own way to ask is replaced."""
    loop = asyncio.get_running_loop()
    looked = Looked(loop.getaddrinfo, *ports)
    monkeypatch.setattr(loop, "getaddrinfo", looked)
    return looked


async def test_a_name_is_asked_for_once_however_many_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream(reply([1])) as upstream, transporting() as transport:
        looked = look_up(monkeypatch, upstream.port)
        looked.go_on.clear()
        opening = [asyncio.Task(transport.open(get("http://upstream.test/v1"), OFF)) for _ in range(5)]
        await until(lambda: bool(looked.asked))

        opening[0].cancel()  # the one that asked; the others wait on
        looked.go_on.set()
        await asyncio.wait(opening, timeout=5)

        assert opening[0].cancelled()
        for each in opening[1:]:
            assert await rest(each.result().body) == b"[1]"
        assert looked.asked == ["upstream.test"]


async def test_an_answer_is_remembered_for_a_moment_and_a_failure_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream(reply([1])) as upstream, transporting(Pool(idle_s=0)) as transport:
        looked = look_up(monkeypatch, upstream.port)
        looked.failing = True
        for _ in range(2):
            with pytest.raises(UpstreamConnectError, match="its name cannot be resolved"):
                await call(transport, get("http://upstream.test/v1"))
        looked.failing = False
        for _ in range(3):
            assert await rest(await call(transport, get("http://upstream.test/v1"))) == b"[1]"

        assert len(looked.asked) == 3
        assert upstream.connections_total == 3


@pytest.mark.parametrize("first", ["refuses", "hangs"])
async def test_another_address_is_tried_where_the_first_does_not_answer(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing_url() if first == "refuses" else silent_url() as bad:
        async with Upstream(reply([1])) as upstream, transporting() as transport:
            look_up(monkeypatch, int(bad.rpartition(":")[2]), upstream.port)

            assert await rest(await call(transport, get("http://upstream.test/v1"))) == b"[1]"


async def test_addresses_of_a_name_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream(reply([1])) as one, Upstream(reply([2])) as other, transporting(Pool(idle_s=0)) as transport:
        look_up(monkeypatch, one.port, other.port)
        for _ in range(4):
            await rest(await call(transport, get("http://upstream.test/v1")))

        assert (one.connections_total, other.connections_total) == (2, 2)


async def test_an_upstream_that_speaks_first_is_none() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ready\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server, transporting() as transport:
        port = server.sockets[0].getsockname()[1]

        with pytest.raises(UpstreamGarbage):
            await call(transport, post(f"http://127.0.0.1:{port}/v1"))


async def test_an_upstream_that_hangs_up_at_once_is_an_error_and_no_wait() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server, transporting() as transport:
        port = server.sockets[0].getsockname()[1]
        for _ in range(10):
            with pytest.raises(UpstreamError) as caught:
                await call(transport, post(f"http://127.0.0.1:{port}/v1"))
            assert caught.value.code in ("upstream_connect", "upstream_cut")


def test_the_wire_needs_nothing_of_aiohttp() -> None:
    """Which costs memory, and time at the start."""
    script = "import sys, llmproxy_server.wire.upstream; print({it.partition('.')[0] for it in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=30)

    assert "httptools" in done.stdout
    assert not {"aiohttp", "yarl", "multidict"} & set(re.findall(r"'(\w+)'", done.stdout))


def test_http_1_1_is_what_tls_agrees_on() -> None:
    """A server that would rather have HTTP/2 must know."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting_the_system().wrap_bio(theirs, ours, server_hostname="upstream.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()

    assert b"\x00\x10\x00\x0b\x00\x09\x08http/1.1" in ours.read()  # RFC 7301 section 3.1


async def test_certificates_and_names_are_verified() -> None:
    context = trusting_the_system()

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
