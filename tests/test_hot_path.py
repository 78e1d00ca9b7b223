"""What a call may cost, guarded by counts: a clock would tell the machine's mood, a count tells the code's."""

import asyncio
import gc
import json
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import llmproxy_anthropic
import pytest

from llmproxy_core.engine import Copying
from llmproxy_core.relay import Flow
from llmproxy_openai import facts, request, scan
from llmproxy_server.access_log import LOGGER
from llmproxy_server.wire.connection import Connection
from llmproxy_server.wire.upstream_answer import Chunks
from llmproxy_server.wire.upstream_body import UpstreamBody
from llmproxy_server.wire.upstream_call import UpstreamCall
from tests.llmproxy_server.edging import HELLO, STREAM, ask, head, post
from tests.proxy import Proxy, openai_at
from tests.rawclient import Client, connected
from tests.upstream import (
    DONE,
    Call,
    Chunk,
    End,
    Head,
    Script,
    Step,
    Upstream,
    chat_chunk,
    completion,
    reply,
    sse,
    stream,
)

CALLS = 20
EVENTS = 300
OURS = ("llmproxy_", "aiohttp")
TEXT = chat_chunk("word")


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Client]:
    """A client of a proxy before an upstream that plays *script*; connections stand, and the first call is over."""
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        upstream.then(reply(completion("warm")), script)
        await ask(client, post(HELLO))
        yield client


@pytest.fixture
def logging_on() -> Iterator[None]:
    """The line of each exchange is made, as in production."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(logging.NOTSET)


@contextmanager
def timers() -> Iterator[list[str]]:
    """The timers that the proxy, not the test, sets meanwhile: the names of what they call."""
    loop = asyncio.get_running_loop()
    found: list[str] = []
    call_at = loop.call_at

    def counted(when: float, callback: Callable[..., object], *args: object, **kwargs: Any) -> asyncio.TimerHandle:
        if str(getattr(callback, "__module__", "")).startswith(OURS):
            found.append(getattr(callback, "__qualname__", repr(callback)))
        return call_at(when, callback, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_at", counted)
        yield found


@contextmanager
def tasks() -> Iterator[list[str]]:
    """The tasks that the proxy, not the test, starts meanwhile."""
    loop = asyncio.get_running_loop()
    found: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
        if any(f"/{package}" in coroutine.cr_code.co_filename for package in OURS):
            found.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    loop.set_task_factory(make)
    try:
        yield found
    finally:
        loop.set_task_factory(None)


def count(patch: pytest.MonkeyPatch, owner: object, name: str, counts: Counter[str]) -> None:
    """Count the calls of a function, which runs as ever."""
    function = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return function(*args, **kwargs)

    patch.setattr(owner, name, counted)


@contextmanager
def steps() -> Iterator[Counter[str]]:
    """How often functions of the proxy's own packages are entered meanwhile, by their names."""
    found = Counter[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and "/llmproxy_" in code.co_filename and "/tests/" not in code.co_filename:
            found[code.co_qualname] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)


def by_call(timers: list[str]) -> list[str]:
    """Those of *timers* that calls may have set: the one that watches the event loop ticks whatever is served."""
    return [name for name in timers if name != "Lag._tick"]


async def whole_stream(client: Client) -> bytes:
    await head(client)
    return await client.until(b"\r\n0\r\n\r\n")


# -- a call --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("logging_on")
async def test_calls_set_no_timer_each() -> None:
    async with serving(reply(completion("Hello"))) as client:
        with timers() as found:
            for _ in range(CALLS):
                await ask(client, post(HELLO))

    assert len(by_call(found)) <= 5, found  # sweeps, and a batch of log lines: by the second, not by the call


async def test_a_call_is_one_task_at_most() -> None:
    async with serving(reply(completion("Hello"))) as client:
        with tasks() as found:
            for _ in range(CALLS):
                await ask(client, post(HELLO))

    assert len(found) <= CALLS, found


async def test_a_body_is_scanned_once_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[str]()
    async with serving(reply(completion("Hello"))) as client:
        count(monkeypatch, request, "scan", counts)
        count(monkeypatch, request, "decode_object", counts)
        count(monkeypatch, facts, "_decode_usual", counts)
        count(monkeypatch, facts, "decode_outline", counts)

        await ask(client, post(HELLO))

    assert counts == {"scan": 1, "_decode_usual": 1}


@pytest.mark.usefixtures("logging_on")
async def test_a_call_stays_within_its_number_of_steps() -> None:
    """Python's time goes by the number of functions that are entered, coroutines that go on included."""
    async with serving(reply(completion("Hello"))) as client:
        with steps() as found:
            for _ in range(CALLS):
                await ask(client, post(HELLO))

    assert found.total() <= 160 * CALLS, found.most_common(20)


async def test_an_event_of_a_stream_stays_within_its_number_of_steps() -> None:
    async with serving(in_step) as client:
        with steps() as found:
            client.send(post(STREAM))
            await whole_stream(client)

    assert found.total() <= 7 * EVENTS, found.most_common(20)


async def test_an_answer_goes_out_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[str]()
    async with serving(reply(completion("Hello"))) as client:
        count(monkeypatch, Connection, "write", counts)

        await ask(client, post(HELLO))

    assert counts == {"write": 1}


@pytest.mark.usefixtures("logging_on")
@pytest.mark.parametrize(
    ("script", "body"),
    [(reply(completion("Hello")), HELLO), (stream(TEXT), STREAM), (reply({"error": {}}, 500), HELLO)],
    ids=["reply", "stream", "error"],
)
async def test_a_call_leaves_nothing_to_the_garbage_collector(script: Script, body: dict[str, Any]) -> None:
    """A cycle keeps the bodies of a call in memory until a collection, and collections are most of what they cost."""
    async with serving(script) as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(CALLS):
                client.send(post(body))
                await (whole_stream(client) if body is STREAM else _answer(client))
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(type(each).__name__ for each in gc.garbage if type(each).__module__.startswith("llmproxy_"))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert left == {}


async def _answer(client: Client) -> bytes:
    got = await head(client)
    return await client.exactly(int(got["content-length"]))


# -- a stream ------------------------------------------------------------------------------------------------------


async def in_step(call: Call) -> None:
    """Each event in a read of its own: the next is sent when the one before has had time to pass."""
    await call.play(Head())
    for _ in range(EVENTS):
        await call.play(Chunk(sse(TEXT, done=False)))
        await asyncio.sleep(0.001)  # what it tests is what becomes of single reads
    await call.play(Chunk(DONE), End())


async def test_a_stream_sets_no_timer_per_chunk() -> None:
    async with serving(in_step) as client:
        with timers() as found:
            client.send(post(STREAM))
            await whole_stream(client)

    assert len(by_call(found)) <= 5, found


async def test_a_stream_is_one_task_at_most() -> None:
    async with serving(in_step) as client:
        with tasks() as found:
            client.send(post(STREAM))
            await whole_stream(client)

    assert len(found) <= 1, found


async def test_events_that_come_one_by_one_pass_at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[str]()
    async with serving(in_step) as client:
        count(monkeypatch, Chunks, "feed", counts)
        count(monkeypatch, UpstreamBody, "_feed", counts)
        count(monkeypatch, Flow, "feed", counts)
        count(monkeypatch, Copying, "feed", counts)

        client.send(post(STREAM))
        await whole_stream(client)

    assert counts.total() < EVENTS / 3, counts  # the kernel may join a few, and the first are looked at


async def test_so_do_those_of_anthropics_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"index": 0, "delta": {"type": "text_delta", "text": "word"}}
    counts = Counter[str]()

    async def in_step(call: Call) -> None:
        await call.play(Head(), Chunk(named("message_start", message={"id": "1", "usage": {"input_tokens": 1}})))
        for _ in range(EVENTS):
            await call.play(Chunk(named("content_block_delta", **said)))
            await asyncio.sleep(0.001)  # what it tests is what becomes of single reads
        await call.play(Chunk(named("message_delta", usage={"output_tokens": 9}) + named("message_stop")), End())

    async with Upstream(in_step) as upstream:
        count(monkeypatch, Flow, "feed", counts)
        mapping = openai_at(upstream.base_url, provider="anthropic")
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy, connected(proxy.port) as client:
            client.send(post({**STREAM, "max_tokens": 9}, "/v1/messages"))
            got = await whole_stream(client)
            usage = (await proxy.outcome()).usage

    assert got.count(b'"text":"word"') == EVENTS
    assert counts.total() < EVENTS / 2, counts
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (1, 9)


def named(kind: str, **members: object) -> bytes:
    """An event of Anthropic's protocol."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members}, separators=(',', ':'))}\n\n".encode()


async def test_a_stream_makes_one_write_per_read_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[str]()
    async with serving(in_step) as client:
        count(monkeypatch, Connection, "write", counts)
        count(monkeypatch, Connection, "pass_on", counts)
        count(monkeypatch, UpstreamCall, "received", counts)

        client.send(post(STREAM))
        await whole_stream(client)

    assert counts["received"] > EVENTS / 2  # the kernel may join a few
    # The head goes with the first, the last chunk of HTTP with the last.
    assert counts["write"] + counts["pass_on"] <= counts["received"]


async def test_events_that_come_in_one_read_go_out_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[str]()
    burst: list[Step] = [Head(), Chunk(sse(*[TEXT] * EVENTS)), End()]
    async with serving(burst) as client:
        count(monkeypatch, Connection, "write", counts)
        count(monkeypatch, UpstreamCall, "received", counts)

        client.send(post(STREAM))
        await whole_stream(client)

    assert counts["received"] < EVENTS / 10
    assert counts["write"] <= counts["received"] + 1


@pytest.mark.parametrize("script", [in_step, stream(*[TEXT] * EVENTS)], ids=["apart", "together"])
async def test_of_a_stream_no_event_is_decoded_that_tells_nothing(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counter[str]()
    async with serving(script) as client:
        count(monkeypatch, scan, "decode_outline", counts)
        count(monkeypatch, scan, "parse_event", counts)

        client.send(post(STREAM))
        got = await whole_stream(client)

    assert got.count(b"word") == EVENTS
    assert counts == {}  # not even taken apart: whole blocks are looked through
