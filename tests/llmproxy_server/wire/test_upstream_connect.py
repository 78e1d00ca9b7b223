"""New connections: names, several addresses, what speaks before it is asked."""

import asyncio
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiodns
import pytest

from llmproxy_core.errors import UpstreamConnectError, UpstreamError, UpstreamGarbage
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.wire.upstream import WireTransport
from llmproxy_server.wire.upstream_connect import Connector
from llmproxy_server.wire.upstream_pool import Connections, Origin
from llmproxy_server.wire.upstream_tls import ResumingContext, trusting_the_system
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
    monkeypatch.setitem(sys.modules, "aiodns", None)
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


@pytest.mark.parametrize("addresses", [1, 2])
async def test_nothing_is_held_back_and_a_dead_upstream_is_noticed(
    addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Upstream() as upstream:
        look_up(monkeypatch, *[upstream.port] * addresses)
        loop = asyncio.get_running_loop()
        connector = Connector(loop, Tasks(), None)
        made = await connector.connect(Connections(Pool(), loop), Origin("upstream.test", upstream.port, tls=False))
        assert made.transport is not None
        connected = made.transport.get_extra_info("socket")
        options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)]

        assert [connected.getsockopt(*option) for option in options] == [1, 1]
        made.transport.abort()
        await connector.aclose()


async def test_an_address_in_a_zone_that_there_is_not_is_an_error_and_no_wait() -> None:
    loop = asyncio.get_running_loop()
    connector = Connector(loop, Tasks(), None)
    nowhere = Origin("fe80::1%nosuch", 9, tls=False)

    async with asyncio.timeout(5) as limit:
        with pytest.raises(socket.gaierror):
            await connector.connect(Connections(Pool(), loop), nowhere)
    assert not limit.expired()
    await connector.aclose()


async def test_addresses_of_a_name_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream(reply([1])) as one, Upstream(reply([2])) as other, transporting(Pool(idle_s=0)) as transport:
        look_up(monkeypatch, one.port, other.port)
        for _ in range(4):
            await rest(await call(transport, get("http://upstream.test/v1")))

        assert (one.connections_total, other.connections_total) == (2, 2)


async def _answer_dns(address: str) -> asyncio.DatagramTransport:
    """A name server that knows one address, of every name but `nobody.test` (RFC 1035)."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            end = data.index(b"\0", 12) + 5
            known = b"nobody" not in data and data[end - 4 : end - 2] == b"\0\1"  # A
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address) if known else b""
            code = b"\x81\x83" if b"nobody" in data else b"\x81\x80"
            self.transport.sendto(data[:2] + code + b"\0\1\0" + bytes([known]) + bytes(4) + data[12:end] + answer, addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, ("127.0.0.1", 0))
    return transport


async def test_aiodns_looks_names_up_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = await _answer_dns("127.0.0.1")
    at = f"127.0.0.1:{names.get_extra_info('sockname')[1]}"
    monkeypatch.setattr(aiodns, "DNSResolver", partial(aiodns.DNSResolver, nameservers=[at]))
    async with Upstream(reply([1])) as upstream, transporting() as transport:
        answer = await call(transport, get(f"http://upstream.test:{upstream.port}/v1"))

        assert await rest(answer) == b"[1]"
        with pytest.raises(UpstreamConnectError, match="its name cannot be resolved"):
            await call(transport, get("http://nobody.test/v1"))
    names.close()


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


class TlsServer:
    """Answers each connection once and closes it; with *keeps*, only when the client does."""

    def __init__(self, certificate: Path, *, keeps: bool, newest: ssl.TLSVersion) -> None:
        self.resumed: list[bool] = []
        self._keeps = keeps
        self._certificate = certificate
        self._newest = newest

    async def listen(self, port: int = 0) -> asyncio.Server:
        """Each time with new keys of its tickets, as after a restart."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate)
        context.maximum_version = self._newest
        return await asyncio.start_server(self._answer, "127.0.0.1", port, ssl=context)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
        await reader.readuntil(b"\r\n\r\n")
        connection = b"keep-alive" if self._keeps else b"close"
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: " + connection + b"\r\nContent-Length: 2\r\n\r\nok")
        await reader.read() if self._keeps else None
        writer.close()


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "closed by the server"])
async def test_a_new_connection_resumes_the_tls_session_of_the_one_before(
    certificate: Path, keeps: bool, newest: ssl.TLSVersion
) -> None:
    server = TlsServer(certificate, keeps=keeps, newest=newest)
    context = ResumingContext.trusting(str(certificate))
    async with await server.listen() as listening, transporting(Pool(idle_s=0), tls=context) as transport:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        for _ in range(3):
            assert await rest(await call(transport, get(url))) == b"ok"

    assert server.resumed == [False, True, True]


async def test_a_server_that_forgot_the_session_makes_a_new_one(certificate: Path) -> None:
    server = TlsServer(certificate, keeps=True, newest=ssl.TLSVersion.TLSv1_3)
    async with transporting(Pool(idle_s=0), tls=ResumingContext.trusting(str(certificate))) as transport:
        port = 0
        for _ in range(2):
            async with await server.listen(port) as listening:
                port = listening.sockets[0].getsockname()[1]
                for _ in range(2):
                    assert await rest(await call(transport, get(f"https://127.0.0.1:{port}/"))) == b"ok"

    assert server.resumed == [False, True, False, True]


async def test_who_is_not_trusted_is_not_resumed_either(certificate: Path) -> None:
    server = TlsServer(certificate, keeps=True, newest=ssl.TLSVersion.TLSv1_3)
    async with await server.listen() as listening, transporting(tls=ResumingContext.trusting()) as transport:
        for _ in range(2):
            with pytest.raises(UpstreamConnectError, match="is not trusted"):
                await call(transport, get(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"))


def test_sessions_are_kept_of_so_many_names(certificate: Path) -> None:
    """Many more names than anybody configures: the memory of them is bounded all the same."""

    class Connected:
        server_hostname = ""
        session = type("Session", (), {"has_ticket": True})()

    context = ResumingContext.trusting(str(certificate))
    for number in range(2000):
        Connected.server_hostname = f"h{number}.test"
        context.keep(Connected())  # type: ignore[arg-type]

    assert len(context._sessions) <= 512
