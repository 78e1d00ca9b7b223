"""What the documentation tells to give to other programs does what it says there, in these programs."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks
from tests.needs import need_program
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.script import Step
from tests.upstream import DONE, EVENT_STREAM, Chunk, End, Head, Upstream, Wait, chat_chunk, sse

HOST = "llm.example.com"
QUESTION = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hello"}]}'


@pytest.mark.parametrize("block", blocks("ini"), ids=str)
def test_systemd_takes_a_unit(block: Block, tmp_path: Path) -> None:
    verify = need_program("systemd-analyze", package="systemd")
    unit = tmp_path / ("llmproxy.socket" if "[Socket]" in block.text else "llmproxy.service")
    unit.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", block.text))
    if unit.suffix == ".socket":
        (tmp_path / "llmproxy.service").write_text("[Service]\nExecStart=/bin/true\n")

    ran = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, timeout=30, check=False)

    assert not [line for line in (ran.stdout + ran.stderr).splitlines() if str(tmp_path) in line or unit.name in line]


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_prometheus_takes_its_rules_and_configuration(block: Block, tmp_path: Path) -> None:
    promtool = need_program("promtool", package="prometheus")
    file = tmp_path / "prometheus.yml"
    file.write_text(block.text)
    kind = "rules" if block.text.startswith("groups:") else "config"

    ran = subprocess.run([promtool, "check", kind, str(file)], capture_output=True, text=True, timeout=30, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr


# -- nginx -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def nginx(proxy_port: int, folder: Path) -> AsyncIterator[int]:
    """The port of an nginx that runs with the configuration of the documentation before a proxy."""
    program = need_program("nginx", package="nginx")
    [block] = blocks("nginx")
    port = _free_port()
    inner = block.text.replace("127.0.0.1:3000", f"127.0.0.1:{proxy_port}").replace(
        "listen 80", f"listen 127.0.0.1:{port}"
    )
    paths = "".join(f"{it}_temp_path {folder}/{it};\n" for it in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    events = "worker_processes 1;\ndaemon off;\nerror_log stderr warn;\nevents { worker_connections 256; }\n"
    file = folder / "nginx.conf"
    file.write_text(f"pid {folder}/pid;\n{events}http {{\naccess_log off;\n{paths}{inner}}}\n")
    process = await asyncio.create_subprocess_exec(
        program, "-p", str(folder), "-c", str(file), "-e", "stderr", stderr=asyncio.subprocess.PIPE
    )
    try:
        await _accepts(port, process)
        yield port
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 10)


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


def _asked(path: str = "/v1/chat/completions", more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(QUESTION)}\r\n\r\n".encode() + QUESTION


def behind(upstream: Upstream) -> Proxy:
    server = {"allowed_hosts": [HOST], "trusted_proxies": ["127.0.0.1"]}
    return Proxy(openai_at(upstream.base_url, server=server))


async def test_behind_nginx_each_event_comes_as_it_is_made(tmp_path: Path) -> None:
    goes_on = asyncio.Event()
    first, second = sse(chat_chunk("one"), done=False), sse(chat_chunk("two", finish="stop"), done=False)
    script: list[Step] = [Head(200, EVENT_STREAM), Chunk(first), Wait(goes_on), Chunk(second), Chunk(DONE), End()]
    async with Upstream(script) as upstream, behind(upstream) as proxy, nginx(proxy.port, tmp_path) as port:
        async with connected(port) as client:
            client.send(_asked())

            await client.until(b'"one"')
            goes_on.set()
            rest = await client.until(b"[DONE]")

        assert b'"two"' in rest


async def test_behind_nginx_a_client_that_leaves_ends_the_upstreams_call(tmp_path: Path) -> None:
    script: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("one"), done=False)), Wait(asyncio.Event())]
    async with Upstream(script) as upstream, behind(upstream) as proxy, nginx(proxy.port, tmp_path) as port:
        async with connected(port) as client:
            client.send(_asked())
            await client.until(b'"one"')

        outcome = await proxy.outcome()
        await upstream.until(lambda: upstream.connections_open == 0)
        upstream.take_errors()

    assert outcome.end == "abandoned"


async def test_behind_nginx_the_log_has_the_address_that_nginx_saw_not_one_that_the_caller_made_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="llmproxy.access")
    caller = "127.0.0.2"  # another one than that of the proxies, which is trusted
    async with Upstream() as upstream, behind(upstream) as proxy, nginx(proxy.port, tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(caller, 0))
        writer.write(_asked("/nowhere", "X-Forwarded-For: 203.0.113.9\r\n"))
        answer = await asyncio.wait_for(reader.readuntil(b"route_not_found"), 10)
        writer.close()
        await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 404")
    [line] = [getattr(it, "fields", {}) for it in caplog.records if it.name == "llmproxy.access"]
    assert line["client"] == caller


@pytest.mark.parametrize("path", ["/health", "/metrics", "/api/metrics", "/api/reload"])
async def test_behind_nginx_our_own_endpoints_are_not_to_be_seen(path: str, tmp_path: Path) -> None:
    async with (
        Upstream() as upstream,
        behind(upstream) as proxy,
        nginx(proxy.port, tmp_path) as port,
        connected(port) as client,
    ):
        client.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = await client.until(b"</html>")

    assert answer.startswith(b"HTTP/1.1 404")
    assert b"Server: nginx" in answer
