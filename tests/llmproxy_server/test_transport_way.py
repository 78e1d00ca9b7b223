"""Calls that do not go straight: through a proxy, to a Unix socket. And which transport carries what."""

import asyncio
import base64
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import pytest

from llmproxy_core.errors import ConfigError, UpstreamConnectError
from llmproxy_core.secret import Secret
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.transport import AiohttpTransport
from llmproxy_server.transport_making import make_transport
from llmproxy_server.wire.upstream import WireTransport
from tests.llmproxy_server.transporting import call, get, post, rest, through, transporting
from tests.upstream import Upstream, refusing_url, reply

PASSWORD = "p%40ss-do-not-tell"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Forwarding:
    """A proxy that lets everything through, or answers *refusal*."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.heads: list[str] = []
        self._refusal = refusal

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await self._head(reader)
        if self._refusal:
            writer.write(self._refusal)
            writer.close()
            return
        method, target, _ = head.split(" ", 2)
        host, _, port = target.removeprefix("http://").partition("/")[0].rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        async with asyncio.TaskGroup() as both:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                both.create_task(_pipe(reader, back))
            else:
                both.create_task(self._forward(head, f"http://{host}:{port}", reader, back))
            both.create_task(_pipe(there, writer))

    async def _head(self, reader: asyncio.StreamReader) -> str:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        except asyncio.IncompleteReadError:
            return ""
        return self.heads[-1]

    async def _forward(
        self, head: str, origin: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Requests with bodies of two bytes."""
        while head:
            fields = [field for field in head.split("\r\n") if not field.startswith("proxy-authorization")]
            writer.write("\r\n".join(fields).replace(origin, "", 1).encode() + await reader.readexactly(2))
            head = await self._head(reader)
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    finally:
        writer.close()


def pool_through(proxy: str) -> Pool:
    return Pool(proxy=Secret(proxy))


@pytest.fixture(autouse=True)
def over_aiohttp() -> Iterator[None]:
    with through(AiohttpTransport):
        yield


async def test_a_call_through_a_proxy_names_all_of_its_url_and_presents_its_password() -> None:
    proxy = Forwarding()
    async with proxy.listening() as at, Upstream(reply([1])) as upstream:
        async with transporting(pool_through(f"http://user:{PASSWORD}@{at}")) as transport:
            for _ in range(2):  # the second over the kept connection
                assert await rest(await call(transport, post(upstream.base_url + "?a=b"))) == b"[1]"

        assert upstream.requests[0].target == "/v1?a=b"
        assert upstream.connections_total == 1
    assert len(proxy.heads) == 2
    for head in proxy.heads:
        assert head.startswith(f"POST {upstream.base_url}?a=b HTTP/1.1\r\nhost: 127.0.0.1:{upstream.port}\r\n")
        assert f"proxy-authorization: Basic {base64.b64encode(b'user:p@ss-do-not-tell').decode()}\r\n" in head


async def test_a_call_over_tls_goes_through_a_tunnel(certificate: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(OK)
        await reader.read()
        writer.close()

    heads: list[str] = []
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate)
    theirs = ssl.create_default_context(cafile=str(certificate))
    proxy = Forwarding()
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=ours) as server, proxy.listening() as at:
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with transporting(pool_through(f"http://user:{PASSWORD}@{at}"), tls=theirs) as transport:
            assert await rest(await call(transport, get(f"https://{host}/v1"))) == b"ok"

    assert proxy.heads[0].startswith(f"CONNECT {host} HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " in proxy.heads[0]
    assert heads[0].startswith("GET /v1 HTTP/1.1\r\n")
    assert "authorization" not in heads[0].lower()


@pytest.mark.parametrize("status", [403, 407])
async def test_a_proxy_that_refuses_a_tunnel_is_told_of_and_its_password_is_not(status: int) -> None:
    proxy = Forwarding(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
    async with proxy.listening() as at, transporting(pool_through(f"http://user:{PASSWORD}@{at}")) as transport:
        with pytest.raises(UpstreamConnectError) as caught:
            await call(transport, get("https://upstream.test/v1"))

    assert caught.value.message == f"Could not connect to upstream.test: its proxy answered with status {status}"
    assert caught.value.__context__ is None


async def test_a_proxy_that_cannot_be_reached_is_told_of() -> None:
    with refusing_url() as url:
        async with transporting(pool_through(url.replace("://", f"://user:{PASSWORD}@"))) as transport:
            with pytest.raises(UpstreamConnectError) as caught:
                await call(transport, get("http://upstream.test/v1"))

    assert caught.value.message == "Could not connect to the proxy of upstream.test: connection refused"


async def test_a_call_to_a_unix_socket(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
        await reader.read()
        writer.close()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(answer, path), transporting(Pool(unix_socket=path)) as transport:
        for _ in range(2):
            assert await rest(await call(transport, get("http://local.test/v1"))) == b"ok"

    assert [head.split(b"\r\n")[:2] for head in heads] == [[b"GET /v1 HTTP/1.1", b"host: local.test"]] * 2


async def test_a_unix_socket_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    async with transporting(Pool(unix_socket=str(tmp_path / "none"))) as transport:
        with pytest.raises(
            UpstreamConnectError, match=r"to local\.test over its Unix socket: no such file or directory"
        ):
            await call(transport, get("http://local.test/v1"))


async def _socks5(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[tuple[str, str, str]]
) -> None:
    """A SOCKS 5 proxy that wants a name and a password (RFC 1928, RFC 1929), and notes what it is asked for."""
    _, methods = await reader.readexactly(2)
    assert 2 in await reader.readexactly(methods)
    writer.write(b"\5\2")
    user = await reader.readexactly((await reader.readexactly(2))[1])
    password = await reader.readexactly((await reader.readexactly(1))[0])
    writer.write(b"\1\0")
    _, _, _, kind = await reader.readexactly(4)
    by_name = kind == 3
    raw = await reader.readexactly((await reader.readexactly(1))[0] if by_name else 4)
    port = int.from_bytes(await reader.readexactly(2), "big")
    asked.append((raw.decode() if by_name else socket.inet_ntoa(raw), user.decode(), password.decode()))
    there, back = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\5\0\0\1" + bytes(6))
    async with asyncio.TaskGroup() as both:
        both.create_task(_pipe(reader, back))
        both.create_task(_pipe(there, writer))


@pytest.mark.parametrize(
    ("scheme", "host", "asked_for"),
    [("socks5", "127.0.0.1", "127.0.0.1"), ("socks5h", "upstream.test", "upstream.test")],
)
async def test_a_call_through_a_socks_proxy(scheme: str, host: str, asked_for: str) -> None:
    """With `socks5h` it is the proxy that looks up the name: nobody else knows `upstream.test`."""
    asked: list[tuple[str, str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await _socks5(reader, writer, asked)

    async with Upstream(reply([1])) as upstream, await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        at = f"user:{PASSWORD}@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with transporting(pool_through(f"{scheme}://{at}")) as transport:
            bodies = [await rest(await call(transport, get(f"http://{host}:{upstream.port}/v1"))) for _ in range(2)]

    assert bodies == [b"[1]", b"[1]"]
    assert asked == [(asked_for, "user", unquote(PASSWORD))]  # once: the connection is kept


async def test_a_socks_proxy_that_is_not_there_is_told_of_without_its_password() -> None:
    with refusing_url() as url:
        at = url.removeprefix("http://").partition("/")[0]
        async with transporting(pool_through(f"socks5://user:{PASSWORD}@{at}")) as transport:
            with pytest.raises(UpstreamConnectError) as caught:
                await call(transport, get("http://127.0.0.1:1/v1"))

    assert PASSWORD not in str(caught.value)
    assert unquote(PASSWORD) not in str(caught.value)


async def test_socks_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp_socks", None)

    with pytest.raises(ConfigError, match=r"llmproxy\[socks\]"):
        make_transport(pool_through("socks5://127.0.0.1:1080"), Tasks())


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        (Pool(), WireTransport),
        (Pool(transport="wire"), WireTransport),
        (Pool(transport="aiohttp"), AiohttpTransport),
        (pool_through("http://127.0.0.1:1"), AiohttpTransport),
        (Pool(unix_socket="/s"), AiohttpTransport),
    ],
    ids=["usual", "wire", "aiohttp", "proxy", "unix socket"],
)
async def test_the_wire_carries_what_it_can(pool: Pool, kind: type[object]) -> None:
    assert type(make_transport(pool, Tasks())) is kind
