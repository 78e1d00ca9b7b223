"""A renewed certificate is used for the handshakes that come, and no connection is lost over it."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.llmproxy_server.edging import STREAM, ask, chunks, head, post, request
from tests.llmproxy_server.reloading import Reloadable
from tests.llmproxy_server.transporting import until
from tests.proxy import openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import Chunk, End, Head, Upstream, Wait, chat_chunk, sse

NOWHERE = "http://127.0.0.1:9/v1"
ONE = sse(chat_chunk("one"), done=False)
REST = sse(chat_chunk(None, finish="stop"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for localhost: `first`, `second`, and `curve` with a key of another kind."""
    folder = tmp_path_factory.mktemp("tls")
    kinds = {"first": ["rsa:2048"], "second": ["rsa:2048"], "curve": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]}
    for name, kind in kinds.items():
        made = ["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*made, "-addext", "subjectAltName=DNS:localhost", *files], check=True, capture_output=True)
    return folder


class Served:
    """A proxy's files, as its configuration names them."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.folder = folder
        self._made = made
        self.renew("first")

    def renew(self, name: str, *, key: str | None = None) -> None:
        shutil.copy(self._made / f"{name}.pem", self.folder / "served.pem")
        shutil.copy(self._made / f"{key or name}.key", self.folder / "served.key")


def mapping(base_url: str = NOWHERE, **server: Any) -> dict[str, Any]:
    return with_server(openai_at(base_url), tls_certificate="served.pem", tls_key="served.key", **server)


@asynccontextmanager
async def by_tls(port: int, *, ciphers: str | None = None) -> AsyncIterator[tuple[Client, str]]:
    """A client, and the name in the certificate that it was shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if ciphers is not None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    client = Client(reader, writer)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    name = next(it for it in ("first", "second", "curve") if it.encode() in shown)
    try:
        yield client, name
    finally:
        await client.close()


async def shown(port: int) -> str:
    async with by_tls(port) as (client, name):
        assert (await ask(client, request("GET", "/livez"))).status == 200
        return name


async def test_a_renewed_certificate_is_shown_although_the_file_is_the_same(tmp_path: Path, made: Path) -> None:
    files = Served(tmp_path, made)
    async with Reloadable(tmp_path, mapping()) as proxy:
        assert await shown(proxy.port) == "first"
        files.renew("second")

        done = await proxy.reload()

        assert (done.ok, done.unchanged) == (True, False)
        assert done.changes == ("the certificate was renewed",)
        assert await shown(proxy.port) == "second"
        assert (await proxy.reload()).unchanged


async def test_a_certificate_of_another_kind_takes_the_place_of_the_old_one_for_every_client(
    tmp_path: Path, made: Path
) -> None:
    files = Served(tmp_path, made)
    async with Reloadable(tmp_path, mapping()) as proxy:
        files.renew("curve")
        await proxy.reload()

        assert await shown(proxy.port) == "curve"
        with pytest.raises((ssl.SSLError, ConnectionError)):  # one that insists on RSA is not shown what has expired
            async with by_tls(proxy.port, ciphers="ECDHE-RSA-AES128-GCM-SHA256"):
                pass


async def test_a_connection_is_closed_also_where_its_client_does_not_say_goodbye(tmp_path: Path, made: Path) -> None:
    Served(tmp_path, made)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def asked() -> ssl.SSLSocket:
        client = context.wrap_socket(socket.create_connection(("127.0.0.1", proxy.port)))
        client.sendall(request("GET", "/livez"))
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        return client

    async with Reloadable(tmp_path, mapping(idle_timeout_s=0.2)) as proxy:
        with await asyncio.to_thread(asked):  # from now on it does nothing at all
            await until(lambda: not proxy.server.edges[0].connections)


async def test_open_connections_stay_open(tmp_path: Path, made: Path) -> None:
    files = Served(tmp_path, made)
    go_on = asyncio.Event()
    async with (
        Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()]) as upstream,
        Reloadable(tmp_path, mapping(upstream.base_url)) as proxy,
        by_tls(proxy.port) as (streamed, _),
        by_tls(proxy.port) as (idle, _),
    ):
        streamed.send(post(STREAM))
        await head(streamed)
        files.renew("second")
        assert (await proxy.reload()).ok
        go_on.set()

        assert await chunks(streamed) == (ONE + REST, True)
        assert (await ask(idle, request("GET", "/livez"))).status == 200


BROKEN = {
    "the key of another": lambda files: files.renew("second", key="first"),
    "no certificate": lambda files: (files.folder / "served.pem").write_text("nonsense"),
    "nothing": lambda files: (files.folder / "served.pem").unlink(),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_certificate_that_will_not_do_leaves_the_old_one(broken: str, tmp_path: Path, made: Path) -> None:
    files = Served(tmp_path, made)
    async with Reloadable(tmp_path, mapping()) as proxy:
        BROKEN[broken](files)

        done = await proxy.reload()

        assert not done.ok
        assert done.problems[0].path in ("server.tls_certificate", "server.tls_key")
        assert done.problems[0].line is not None
        assert await shown(proxy.port) == "first"
        files.renew("second")
        assert (await proxy.reload()).ok
        assert await shown(proxy.port) == "second"


async def test_tls_is_switched_on_and_off_by_a_restart_only(tmp_path: Path, made: Path) -> None:
    Served(tmp_path, made)
    plain = openai_at(NOWHERE)
    async with Reloadable(tmp_path, plain) as proxy:
        done = await proxy.reload(mapping(max_in_flight=7))
        assert [it.name for it in done.kept_settings] == ["server.tls_certificate", "server.tls_key"]
        async with connected(proxy.port) as client:
            assert (await ask(client, request("GET", "/livez"))).status == 200
    async with Reloadable(tmp_path, mapping()) as proxy:
        done = await proxy.reload(with_server(plain, max_in_flight=7))
        assert [it.name for it in done.kept_settings] == ["server.tls_certificate", "server.tls_key"]
        assert await shown(proxy.port) == "first"


async def test_the_address_of_the_own_endpoints_stays_plain(tmp_path: Path, made: Path) -> None:
    Served(tmp_path, made)
    async with Reloadable(tmp_path, mapping(own_endpoints="127.0.0.1:0")) as proxy:
        assert proxy.server.own_url is not None
        port = int(proxy.server.own_url.rpartition(":")[2])
        await proxy.reload(mapping(own_endpoints="127.0.0.1:0", max_connections=5))

        async with connected(port) as client:
            assert (await ask(client, request("GET", "/livez"))).status == 200
