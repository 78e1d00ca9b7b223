"""`PYTHONASYNCIODEBUG=1 llmproxy serve`: asyncio, which then looks closely, finds nothing to complain of."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.llmproxy_server.cli_process import TIMEOUT_S, environment, install_plugin
from tests.llmproxy_server.edging import HELLO, STREAM, Answer, answer, ask, post, request
from tests.rawclient import connected
from tests.upstream import Chunk, Cut, Head, Script, Stall, Upstream, chat_chunk, completion, reply, sse, stream
from tests.workers import Workers, working

COMPLAINTS = (
    r"coroutine '\w+' was never awaited",
    r"\w+ exception was never retrieved",  # of a task, of a future
    r"Task was destroyed but it is pending",
    r"Non-thread-safe operation",
    r"Exception in callback",
    r"Exception ignored in",
    r"(?i:unclosed)[^\n]*",  # a transport, an event loop; what uvloop says is "unclosed resource"
    r"(?i:fatal error on)[^\n]*",
    r"(?i:fatal \w+ error on)[^\n]*",
    r"Traceback",
)
"""Not that something took 0.1 seconds: a busy machine is enough for that."""
MISTAKES = """
import asyncio, threading, uvloop

async def forgotten(): ...

async def broken(): raise ValueError

async def make():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    forgotten()
    calling = threading.Thread(target=loop.call_soon, args=(print,))
    calling.start()
    calling.join()
    loop.call_soon(1 .__truediv__, "nothing", "and more")
    asyncio.Task(broken())
    await asyncio.sleep(0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    server.close()
    return transport

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    transport = runner.run(make())
"""
FORGOTTEN = "coroutine 'forgotten' was never awaited"
CARELESS = """
import attrs
from llmproxy_core import Operation, ProcessorType, hookimpl

async def forgotten(): ...

class Careless:
    async def __call__(self, exchange, call_next):
        forgotten()
        return await call_next(exchange)

@attrs.frozen
class Config:
    "None."

@hookimpl
def llmproxy_processors():
    return [ProcessorType("careless", Config, lambda config, services: Careless(), frozenset({Operation.CHAT}))]
"""
CONFIG = """\
[server]
port = 0
log = {{ format = "json" }}

[llm.up]
provider = "openai"
base_url = "{base_url}"
transport = "{transport}"

[llm.nowhere]
provider = "openai"
base_url = "http://127.0.0.1:9/v1"
transport = "{transport}"

[processor.cache]
type = "cache"

[processor.careless]
type = "careless"

[[route]]
path_prefix = "/nowhere"
target_llm = "nowhere"

[[route]]
path_prefix = "/pulled"
target_llm = "up"
processors = ["cache"]
operations = ["chat"]

[[route]]
path_prefix = "/careless"
target_llm = "up"
processors = ["careless"]
operations = ["chat"]

[[route]]
path_prefix = "/v1"
target_llm = "up"
"""
ONE = sse(chat_chunk("one"), done=False)
WATCHING = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "always"}


@pytest.mark.parametrize("transport", ["wire", "aiohttp"])
async def test_nothing_but_what_a_plugin_forgot_is_complained_of(transport: str, tmp_path: Path) -> None:
    install_plugin(tmp_path, "careless", CARELESS)
    async with Upstream(reply(completion("Hello"))) as upstream:
        config = CONFIG.format(base_url=upstream.base_url, transport=transport)
        async with working(tmp_path, config, variables={**WATCHING, "PYTHONPATH": str(tmp_path)}) as proxy:
            await _call_in_every_way(proxy, upstream)
            await _ask(proxy, post(path="/careless/chat/completions"))
            idle = connected(proxy.port)  # to be closed by the server
            assert (await ask(await idle.__aenter__(), post())).status == 200

            assert await proxy.end() == 0

            await idle.__aexit__(None, None, None)

    assert complaints(proxy.text) == [FORGOTTEN], proxy.text


def test_what_is_complained_of_is_understood() -> None:
    """Else nothing found would say nothing."""
    made = subprocess.run(
        [sys.executable, "-c", MISTAKES],
        env=environment(**WATCHING),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    found = complaints(made.stderr)
    expected = [
        FORGOTTEN,
        "Non-thread-safe operation",
        "Exception in callback",
        "Task exception was never retrieved",
        "unclosed resource <TCPTransport",
    ]
    assert [each for each in expected if not any(it.startswith(each) for it in found)] == [], made.stderr


def complaints(text: str) -> list[str]:
    return [found[0] for found in re.finditer("|".join(f"(?:{each})" for each in COMPLAINTS), text)]


async def _call_in_every_way(proxy: Workers, upstream: Upstream) -> None:
    async with connected(proxy.port) as client:
        assert (await ask(client, post())).status == 200
        for path in ("/v1/chat/completions", "/pulled/chat/completions"):
            upstream.then(stream(chat_chunk("one"), chat_chunk("two", finish="stop")))
            streamed = await ask(client, post(STREAM, path))
            assert streamed.complete
            assert b"two" in streamed.body
        client.send(post() + post() + request("GET", "/livez"))  # pipelined
        assert [(await answer(client)).status for _ in range(3)] == [200, 200, 200]
        assert (await ask(client, post(path="/nowhere/chat/completions"))).status == 502
    upstream.then([Head(), Chunk(ONE), Cut()])
    assert not (await _ask(proxy, post(STREAM))).complete
    assert (await _ask(proxy, b"nonsense\r\n\r\n")).status == 400
    await _leave(proxy, upstream, HELLO, [Stall()])
    await _leave(proxy, upstream, STREAM, [Head(), Chunk(ONE), Stall()])


async def _ask(proxy: Workers, data: bytes) -> Answer:
    async with connected(proxy.port) as client:
        return await ask(client, data)


async def _leave(proxy: Workers, upstream: Upstream, body: object, script: Script) -> None:
    """Ask, and go away: once the upstream was asked, or in the middle of its answer."""
    upstream.then(script)
    async with connected(proxy.port) as client:
        client.send(post(body))
        asked = await upstream.received(len(upstream.requests) + 1)
        if body is STREAM:
            await client.until(ONE)
    await asyncio.wait_for(asked.gone.wait(), 10)
