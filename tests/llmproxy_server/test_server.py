"""The server's life: ports, TLS, draining, signals, and what it shares."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmproxy_core.config import structure
from llmproxy_core.errors import ConfigError
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End as Ending
from llmproxy_core.outcome import Outcome
from llmproxy_core.plugins import Registry
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.call_stream import HEAD_HELD_S
from llmproxy_server.listener import listen
from llmproxy_server.server import Server
from llmproxy_server.transport import AiohttpTransport
from tests.llmproxy_server.edging import (
    HELLO,
    STREAM,
    Processing,
    answer,
    ask,
    chunks,
    head,
    many,
    post,
    processed,
    request,
)
from tests.llmproxy_server.transporting import until
from tests.proxy import STANDARD_PLUGINS, Proxy, openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import (
    Chunk,
    Cut,
    End,
    Flood,
    Head,
    Stall,
    Step,
    Upstream,
    Wait,
    chat_chunk,
    completion,
    reply,
    sse,
    stream,
)

NOWHERE = "http://127.0.0.1:9/v1"
PLAIN = reply(completion("Hello"))
ONE = sse(chat_chunk("one"), done=False)
REST = sse(chat_chunk(None, finish="stop"))
ROOT = Path(__file__).parent.parent.parent


def server_of(mapping: dict[str, object], *, listening: Sequence[socket.socket] | None = None) -> Server:
    registry = Registry.of(*STANDARD_PLUGINS)
    return Server(structure(mapping, registry, {})[0], registry, listening=listening)


# -- ports ---------------------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_a_problem_of_the_configuration_and_nothing_stays_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = server_of(with_server(openai_at(NOWHERE), port=0, own_endpoints=f"127.0.0.1:{port}"))

        with pytest.raises(ConfigError) as caught:
            await server.start()

        assert caught.value.problems[0].path == "server.own_endpoints"
        assert str(port) in str(caught.value)
        assert not server.edges[0].connections


async def test_localhost_is_served_at_every_address_it_has() -> None:
    addresses = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    sockets = listen("localhost", 0)
    try:
        assert {each.getsockname()[0] for each in sockets} == addresses
        assert len({each.getsockname()[1] for each in sockets}) == 1
    finally:
        for each in sockets:
            each.close()


async def test_connections_over_the_bound_wait_until_one_has_ended() -> None:
    async with Proxy(with_server(openai_at(NOWHERE), max_connections=1)) as proxy:
        async with connected(proxy.port) as first:
            assert (await ask(first, request("GET", "/livez"))).status == 200
            second = connected(proxy.port)
            client = await second.__aenter__()  # the kernel takes it
            client.send(request("GET", "/livez"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.1)
        assert (await answer(client)).status == 200
        await second.__aexit__(None, None, None)


async def test_llms_of_equal_pools_share_a_transport() -> None:
    made: list[Pool] = []

    def make(pool: Pool, tasks: Tasks) -> AiohttpTransport:
        made.append(pool)
        return AiohttpTransport(pool, tasks)

    one = {"provider": "openai", "base_url": NOWHERE}
    mapping = {
        "server": {"port": 0},
        "llm": {"a": one, "b": one, "c": {**one, "pool": {"max_connections": 3}}},
        "route": [{"path_prefix": f"/{name}", "target_llm": name} for name in "abc"],
    }
    registry = Registry.of(*STANDARD_PLUGINS)
    server = Server(structure(mapping, registry, {})[0], registry, make_transport=make)
    await server.start()
    await server.aclose()

    assert [pool.max_connections for pool in made] == [0, 3]


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*made, *names], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@asynccontextmanager
async def connected_by_tls(port: int, certificate: Path) -> AsyncIterator[Client]:
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_alpn_protocols(["h2", "http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("max_connections", [0, 5])
async def test_tls_is_served(certificate: Path, max_connections: int) -> None:
    files = {"tls_certificate": str(certificate), "tls_key": str(certificate), "max_connections": max_connections}
    async with (
        Upstream(stream(chat_chunk("x"))) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), **files)) as proxy,
    ):
        assert proxy.url.startswith("https://127.0.0.1:")
        async with connected(proxy.port) as plain:  # not TLS: closed, and the next one is served
            plain.send(request("GET", "/livez"))
            assert await plain.rest() == b""
        async with connected_by_tls(proxy.port, certificate) as client:
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert (await ask(client, post(STREAM))).body == sse(chat_chunk("x"))


@pytest.mark.parametrize("max_connections", [0, 1])
async def test_who_does_not_finish_the_handshake_is_cut_like_a_slow_head(
    certificate: Path, max_connections: int
) -> None:
    files = {"tls_certificate": str(certificate), "tls_key": str(certificate), "max_connections": max_connections}
    async with (
        Proxy(with_server(openai_at(NOWHERE), header_timeout_s=1, **files)) as proxy,
        connected(proxy.port) as silent,
    ):
        assert await silent.rest() == b""
        async with connected_by_tls(proxy.port, certificate) as client:
            assert (await ask(client, request("GET", "/livez"))).status == 200


async def test_a_stream_that_breaks_over_tls_ends_without_the_last_chunk(certificate: Path) -> None:
    files = {"tls_certificate": str(certificate), "tls_key": str(certificate)}
    async with (
        Upstream([Head(), Chunk(ONE), Cut()]) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), **files)) as proxy,
        connected_by_tls(proxy.port, certificate) as client,
    ):
        got = await ask(client, post(STREAM))

        assert not got.complete
        assert got.body.startswith(ONE)
        assert b"upstream_cut" in got.body


async def test_a_certificate_that_is_none_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    server = server_of(with_server(openai_at(NOWHERE), tls_certificate=str(nonsense), tls_key=str(nonsense)))

    with pytest.raises(ConfigError, match=r"server\.tls_certificate"):
        await server.start()


# -- draining ------------------------------------------------------------------------------------------------------


async def test_what_is_in_flight_is_finished_and_nothing_new_is_taken() -> None:
    go_on = asyncio.Event()
    async with Upstream() as upstream:
        upstream.script = [Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()]
        upstream.then([Wait(go_on), *PLAIN])
        async with (
            Proxy(openai_at(upstream.base_url)) as proxy,
            connected(proxy.port) as plain,
            connected(proxy.port) as streamed,
            connected(proxy.port) as idle,
        ):
            plain.send(post())
            await upstream.received()
            streamed.send(post(STREAM))
            await streamed.until(ONE + b"\r\n")
            assert (await ask(idle, request("GET", "/readyz"))).status == 200
            port = proxy.port

            stopping = asyncio.get_running_loop().create_task(proxy.server.stop())

            assert await idle.rest() == b""  # closed at once
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)
            go_on.set()
            got = await answer(plain)
            assert (got.status, got["connection"]) == (200, "close")
            assert await chunks(streamed) == (REST, True)
            assert await plain.rest() == await streamed.rest() == b""
            await asyncio.wait_for(stopping, 5)
            assert [outcome.end for outcome in proxy.outcomes] == [Ending.COMPLETED] * 2


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 421), ("0.0.0.0", 200)])
async def test_whom_a_request_is_meant_for_counts_where_only_this_machine_reaches_the_socket_that_was_handed_down(
    address: str, status: int
) -> None:
    with socket.create_server((address, 0)) as opened:
        opened.setblocking(False)
        port = opened.getsockname()[1]
        server = server_of(openai_at(NOWHERE), listening=[opened])
        await server.start()
        try:
            async with connected(port) as client:
                got = await ask(client, request("GET", "/livez", host="llm.example.com"))
        finally:
            await server.stop()

    assert got.status == status


async def test_what_was_written_to_a_slow_client_reaches_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of a stream, say, whose call is over."""
    monkeypatch.setattr("llmproxy_server.edge._CLOSE_S", 0.05)
    size = 8_000_000
    async with Proxy(openai_at(NOWHERE)) as proxy, connected(proxy.port, read_buffer_bytes=4096) as client:
        assert (await ask(client, request("GET", "/livez"))).status == 200
        client.writer.transport.pause_reading()  # type: ignore[attr-defined] # it reads
        (connection,) = proxy.server.edges[0].connections
        assert connection.socket is not None
        connection.socket.write(b"x" * size)

        stopping = asyncio.get_running_loop().create_task(proxy.server.stop())
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, passed.set)
        await passed.wait()
        assert connection.unsent_bytes
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]

        assert len(await client.rest()) == size
        await asyncio.wait_for(stopping, 5)


async def test_requests_that_the_kernel_holds_when_draining_begins_are_answered() -> None:
    async with Upstream(PLAIN) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)) as sent:
            sent.sendall(post())

            await proxy.server.stop()

            sent.settimeout(5)
            assert sent.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


async def test_what_is_sent_behind_the_last_call_of_a_drain_is_not_answered() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *PLAIN]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post() + request("GET", "/readyz"))
        await upstream.received()
        proxy.server.life.draining = True
        go_on.set()

        assert (await answer(client))["connection"] == "close"
        assert await client.rest() == b""  # the second is not answered: its sender knows that it may try again


async def test_what_is_not_over_in_time_is_ended_and_its_clients_are_told() -> None:
    settled: list[Outcome] = []

    async def settle(outcome: Outcome) -> None:
        await asyncio.sleep(0)
        settled.append(outcome)

    async def account(exchange: Exchange, call_next: Handler) -> Response:
        exchange.on_finish(settle)
        return await call_next(exchange)

    async with Upstream([Head(), Chunk(ONE), Stall()]) as upstream:
        upstream.then([Stall()])
        mapping = with_server(processed(openai_at(upstream.base_url)), drain_timeout_s=0.1)
        async with (
            Proxy(mapping, plugins=[Processing(account)]) as proxy,
            connected(proxy.port) as plain,
            connected(proxy.port) as streamed,
            connected(proxy.port) as sending,
        ):
            plain.send(post())
            await upstream.received()
            streamed.send(post(STREAM))
            await head(streamed)
            await streamed.until(ONE + b"\r\n")
            sending.send(post()[:-1])
            await until(lambda: len(proxy.server.edges[0].calls) == 3)

            await asyncio.wait_for(proxy.server.stop(), 5)

            for client in (plain, sending):
                got = await answer(client)
                assert (got.status, got.code, got["connection"]) == (503, "shutting_down", "close")
            body, complete = await chunks(streamed)
            assert b"shutting_down" in body
            assert not complete
            assert len(settled) == 2
            assert {outcome.end for outcome in proxy.outcomes} == {Ending.FAILED}
            assert proxy.server.admission.in_flight == 0
            assert len(proxy.server.tasks) == 0


async def test_a_client_that_does_not_read_does_not_stop_the_end() -> None:
    chunk = sse(chat_chunk("x" * 16_000), done=False)
    async with (
        Upstream([Head(), Flood(chunk)], send_buffer_bytes=65_536) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), drain_timeout_s=0.1)) as proxy,
        connected(proxy.port, read_buffer_bytes=16_384) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(post(STREAM))
        await (await upstream.received()).held_back(0.1)

        await asyncio.wait_for(proxy.server.stop(), 8)

        assert not proxy.server.edges[0].connections


async def test_work_that_outlived_its_exchange_is_waited_for_and_then_ended() -> None:
    detached: list[Exchange] = []

    async def detach(exchange: Exchange, call_next: Handler) -> Response:
        detached.append(exchange.detach(exchange.request))
        return await call_next(exchange)

    async with Upstream(PLAIN) as upstream:
        mapping = with_server(processed(openai_at(upstream.base_url)), drain_timeout_s=0.3)
        async with Proxy(mapping, plugins=[Processing(detach)]) as proxy, connected(proxy.port) as client:
            await ask(client, post())
            await ask(client, post())
            stopping = asyncio.get_running_loop().create_task(proxy.server.stop())
            await asyncio.sleep(0)

            detached[0].finish(Ending.COMPLETED)
            await asyncio.wait_for(stopping, 5)

        assert [each.outcome.end for each in detached if each.outcome] == [Ending.COMPLETED, Ending.ABANDONED]


async def test_an_answer_whose_effects_are_awaited_when_time_is_over_is_still_complete() -> None:
    settling = asyncio.Event()

    async def settle(outcome: Outcome) -> None:
        settling.set()
        await asyncio.Event().wait()

    async def account(exchange: Exchange, call_next: Handler) -> Response:
        exchange.on_finish(settle)
        return await call_next(exchange)

    async with Upstream(stream(chat_chunk("x"))) as upstream:
        mapping = with_server(processed(openai_at(upstream.base_url)), drain_timeout_s=0.05, settle_timeout_s=0.5)
        async with Proxy(mapping, plugins=[Processing(account)]) as proxy, connected(proxy.port) as client:
            client.send(post(STREAM))
            await asyncio.wait_for(settling.wait(), 5)

            await asyncio.wait_for(proxy.server.stop(), 5)

            got = await answer(client)
            assert (got.body, got.complete) == (sse(chat_chunk("x")), True)


@pytest.mark.parametrize("watched", [False, True], ids=["pushed", "pulled"])
async def test_a_stream_of_which_nothing_was_sent_when_time_is_over_is_told_by_its_status(*, watched: bool) -> None:
    """However long the effects of its end take: longer than its head is held for what it says first."""
    settling = asyncio.Event()

    async def settle(outcome: Outcome) -> None:
        settling.set()
        await asyncio.sleep(HEAD_HELD_S + 0.5)

    async def account(exchange: Exchange, call_next: Handler) -> Response:
        exchange.on_finish(settle)
        response = await call_next(exchange)
        if watched:
            response.watch(lambda channel: None)
        return response

    async with Upstream([Head(), Stall()]) as upstream:
        mapping = with_server(processed(openai_at(upstream.base_url)), drain_timeout_s=0.05, settle_timeout_s=5)
        async with Proxy(mapping, plugins=[Processing(account)]) as proxy, connected(proxy.port) as client:
            client.send(post(STREAM))
            await upstream.received()
            await until(lambda: any(call.stream is not None for call in proxy.server.edges[0].calls))

            await asyncio.wait_for(proxy.server.stop(), 9)

            got = await answer(client)
            assert (got.status, got.code) == (503, "shutting_down")
            assert settling.is_set()


# -- processes -----------------------------------------------------------------------------------------------------

CONFIG = """
[server]
port = 0
drain_timeout_s = {drain}

[llm.here]
provider = "openai"
base_url = "{base_url}"

[[route]]
path_prefix = "/v1"
target_llm = "here"
"""
PROGRAM = """
import sys, tomli
import llmproxy_openai.plugin
from llmproxy_core.config import structure
from llmproxy_core.plugins import Registry
from llmproxy_server.server import Server
registry = Registry.of(llmproxy_openai.plugin)
config, _ = structure(tomli.loads(sys.argv[1]), registry, {})
sys.exit(Server(config, registry, started=lambda server: print(server.url, flush=True)).run())
"""


@asynccontextmanager
async def process(base_url: str, *, drain: float = 10.0) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A proxy in a process of its own, on uvloop, and its port."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        CONFIG.format(base_url=base_url, drain=drain),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert running.stdout is not None
    try:
        url = (await asyncio.wait_for(running.stdout.readline(), 20)).decode().strip()
        yield running, int(url.rpartition(":")[2])
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_twenty_streams_finish_and_the_process_exits_with_0(sent: signal.Signals) -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()]
    async with (
        Upstream(script) as upstream,
        process(upstream.base_url) as (running, port),
        many(port, 20) as clients,
    ):
        for client in clients:
            client.send(post(STREAM))
            await client.until(ONE + b"\r\n")

        running.send_signal(sent)
        await refused(port)
        go_on.set()

        assert [await chunks(client) for client in clients] == [(REST, True)] * 20
        assert await asyncio.wait_for(running.wait(), 10) == 0


async def test_a_second_interrupt_ends_the_process_at_once() -> None:
    async with (
        Upstream([Head(), Chunk(ONE), Stall()]) as upstream,
        process(upstream.base_url) as (running, port),
        connected(port) as client,
    ):
        client.send(post(STREAM))
        await client.until(ONE + b"\r\n")
        running.send_signal(signal.SIGINT)
        await refused(port)

        running.send_signal(signal.SIGINT)

        assert await asyncio.wait_for(running.wait(), 5) == 130


async def test_on_uvloop_streams_break_and_clients_leave_as_on_asyncio() -> None:
    async with Upstream([Head(), Chunk(ONE), Cut()]) as upstream, process(upstream.base_url) as (running, port):
        async with connected(port) as client:
            got = await ask(client, post(STREAM))
            assert not got.complete
            assert b"upstream_cut" in got.body
        upstream.then([Head(), Chunk(ONE), Stall()])
        async with connected(port) as client:
            client.send(post(STREAM))
            await client.until(ONE + b"\r\n")
        await asyncio.wait_for(upstream.requests[-1].gone.wait(), 1)
        async with connected(port) as client:
            assert (await ask(client, b"nonsense\r\n\r\n")).status == 400
            assert await client.rest() == b""
        async with connected(port) as client:
            client.send(post(STREAM))
            client.writer.write_eof()
            await client.rest()
        upstream.then(reply(completion("Hello")))
        async with connected(port) as client:  # uvloop reads several times before any task runs
            assert (await ask(client, post({**HELLO, "user": "x" * 1_000_000}))).status == 200
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        assert await asyncio.wait_for(running.wait(), 10) == 0
        assert b"Traceback" not in await running.stderr.read()


async def refused(port: int) -> None:
    """Wait until nobody listens on *port*."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()
