"""A new version takes over a port that speaks TLS: connections that shake hands meanwhile are served, too."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.llmproxy_server.edging import answer, chunks, head, post
from tests.rawclient import Client, connected
from tests.upstream import Chunk, End, Head, Upstream, Wait
from tests.versions import CHAT, CONFIG, ENDLESS, ONE, REST, eventually, loaded, versions
from tests.workers import QUESTION, STREAMED, WAIT_S

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(180),
]
_long = [pytest.mark.soak, pytest.mark.timeout(300)]
T = TypeVar("T")
CERTIFICATES = ("first", "second")
TLS = CONFIG.replace(
    "port = 0", 'port = 0\ntls_certificate = "served.pem"\ntls_key = "served.key"\nheader_timeout_s = 120'
)
"""A handshake may take as long as a head: longer than a takeover on a busy machine."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the CERTIFICATES and their keys."""
    folder = tmp_path_factory.mktemp("tls")
    for name in CERTIFICATES:
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*made, *files], check=True, capture_output=True, timeout=60)
    return folder


def serve(folder: Path, made: Path, name: str) -> None:
    """Put the certificate *name* where the configuration in *folder* looks for it."""
    for suffix in ("pem", "key"):
        shutil.copy(made / f"{name}.{suffix}", folder / f"served.{suffix}")


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@asynccontextmanager
async def by_tls(port: int) -> AsyncIterator[Client]:
    async with asyncio.timeout(WAIT_S):
        client = Client(*await asyncio.open_connection("127.0.0.1", port, ssl=trusting()))
    try:
        yield client
    finally:
        await client.close()


async def shown(port: int) -> str:
    """The name in the certificate of whoever answers a call."""
    async with by_tls(port) as client:
        found = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        client.send(post(QUESTION))
        assert (await answer(client)).status == 200
    return next(name for name in CERTIFICATES if name.encode() in found)


@pytest.mark.parametrize("count", ["1", pytest.param("2", marks=_long)], ids=["one process", "workers"])
async def test_a_takeover_under_tls_load_fails_no_call_and_shows_the_renewed_certificate(
    tmp_path: Path, made: Path, count: str
) -> None:
    serve(tmp_path, made, "first")
    over = asyncio.Event()
    async with Upstream([Head(), Chunk(ONE), Wait(over), Chunk(REST), End()], timeout_s=120) as endless:
        config = TLS + ENDLESS.format(endless.base_url)
        async with versions(tmp_path, config, "--workers", count) as proxy:
            async with loaded(proxy.port, by_tls) as load, by_tls(proxy.port) as client:
                client.send(post(STREAMED, "/long" + CHAT))
                assert (await head(client)).status == 200
                await load.go_on()
                serve(tmp_path, made, "second")
                assert await shown(proxy.port) == "first", "it was read when the old one began"

                await proxy.take_over()
                await load.go_on()
                assert await shown(proxy.port) == "second"
                assert proxy.lines("stopped") == [], "the old one waits for its stream"
                over.set()

                assert await asyncio.wait_for(chunks(client), WAIT_S) == (ONE + REST, True)
                await proxy.stopped(1)
                await load.go_on()
                await eventually(lambda: proxy.first.process.returncode == 0)
            assert load.failed == []
            print(f"a takeover under TLS, {load.served} calls, 0 failed")  # noqa: T201 - a figure for the documentation
    assert "Traceback" not in proxy.first.text


class Slow:
    """A client that begins a handshake, and goes on with it when it likes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting().wrap_bio(self._received, self._to_send)

    async def begin(self) -> None:
        """Until the server has answered the first message: it has the connection then."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        await self._turn()

    async def post(self, data: bytes) -> bytes:
        """Go on with the handshake, send *data*, and give the first bytes of the answer."""
        await self._done(self._tls.do_handshake)
        self._tls.write(data)
        return await self._done(lambda: self._tls.read(1 << 16))

    async def _done(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._turn()

    async def _turn(self) -> None:
        """Send what there is, and wait for what comes."""
        self._client.send(self._to_send.read())
        data = await asyncio.wait_for(self._client.reader.read(1 << 16), WAIT_S)
        if not data:
            raise ConnectionError("the server has closed the connection")
        self._received.write(data)


@pytest.mark.parametrize("count", ["1", pytest.param("2", marks=_long)], ids=["one process", "workers"])
async def test_who_shakes_hands_with_the_old_version_when_it_is_relieved_is_served_by_it(
    tmp_path: Path, made: Path, count: str
) -> None:
    serve(tmp_path, made, "first")
    async with versions(tmp_path, TLS, "--workers", count) as proxy, connected(proxy.port) as client:
        slow = Slow(client)
        await slow.begin()
        await proxy.take_over()

        assert (await slow.post(post(QUESTION))).startswith(b"HTTP/1.1 200 ")
