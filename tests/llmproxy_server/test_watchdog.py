"""The watchdog: who holds up the event loop is named, by a thread, while it does."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import attrs
import pytest

from llmproxy_core import (
    Endpoint,
    EndpointReply,
    EndpointRequest,
    Exchange,
    Handler,
    Operation,
    Outcome,
    ProcessorType,
    Response,
    Services,
    hookimpl,
)
from llmproxy_core.chat import ChatEvent
from llmproxy_core.processor import Processor
from llmproxy_server.culprit import NOBODY, Culprit, Suspects
from llmproxy_server.lag import PERIOD_S, Lag
from llmproxy_server.watchdog import Watchdog
from tests.llmproxy_server.edging import HELLO, STREAM, NoConfig, Serves, ask, post, request
from tests.proxy import Proxy, openai_at
from tests.rawclient import Client, connected
from tests.upstream import Upstream, chat_chunk, completion, reply, stream

AT_MOST_S = 20.0
BLOCKED = "the event loop is blocked"
PLUGIN = f"plugin {__name__}.Blocking"


class Said(logging.Handler):
    """What is logged, from any thread; whoever blocks the loop may wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append((record.getMessage(), getattr(record, "fields", {})))
            self._changed.notify_all()

    def of(self, message: str) -> list[dict[str, Any]]:
        return [fields for said, fields in self.lines if said == message]

    def block_until(self, message: str, count: int = 1) -> None:
        """Hold up this thread until *message* was said so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(message)) >= count, AT_MOST_S), self.lines

    @property
    def accused(self) -> list[dict[str, Any]]:
        """Who was seen in this file: a machine that stands still may be told of, too."""
        return [it for it in self.of(BLOCKED) if str(it["at"]).startswith("test_watchdog.py:")]

    def block_until_accused(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.accused, AT_MOST_S), self.lines


@contextmanager
def listening() -> Iterator[Said]:
    said, logger = Said(), logging.getLogger("llmproxy")
    logger.addHandler(said)
    try:
        yield said
    finally:
        logger.removeHandler(said)


@pytest.fixture
def said() -> Iterator[Said]:
    with listening() as heard:
        yield heard


@attrs.define
class Where:
    """Where a processor blocks: each is a way in which a plugin's code is run."""

    block: Callable[[], None]
    place: str = ""


class Blocks:
    """Holds up the loop at the place that its test names."""

    def __init__(self, where: Where) -> None:
        self._where = where

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        self._at("call")
        exchange.on_finish(self._ended)
        block = self._where.block
        if self._where.place == "function":
            exchange.on_finish(lambda outcome: block())
        if self._where.place == "task":
            asyncio.get_running_loop().call_soon(block)
        response = await call_next(exchange)
        self._at("after")
        if self._where.place == "watcher":
            response.watch(lambda channel: Watcher(block))
        if self._where.place == "replace":
            response.replace(lambda events: _replaced(events, block))
        return response

    def _at(self, place: str) -> None:
        if self._where.place == place:
            self._where.block()

    def _ended(self, outcome: Outcome) -> None:
        self._at("finish")


class Watcher:
    def __init__(self, block: Callable[[], None]) -> None:
        self._block = block

    def feed(self, text: str) -> None:
        self._block()

    def end(self) -> None:
        """Nothing is held."""


async def _replaced(events: AsyncIterator[ChatEvent], block: Callable[[], None]) -> AsyncIterator[ChatEvent]:
    async for event in events:
        block()
        yield event


class Blocking:
    """A plugin with two processor types, so that a name cannot be guessed from the plugin."""

    def __init__(self, where: Where) -> None:
        self._where = where

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        def build(config: NoConfig, services: Services) -> Processor:
            return Blocks(self._where)

        def build_idle(config: NoConfig, services: Services) -> Processor:
            return Blocks(Where(lambda: None))

        operations = frozenset(Operation)
        return [
            ProcessorType(name="blocking", config=NoConfig, build=build, operations=operations),
            ProcessorType(name="idle", config=NoConfig, build=build_idle, operations=operations),
        ]


def mapping(base_url: str) -> dict[str, Any]:
    """The guilty one stands inside an innocent one."""
    whole = openai_at(base_url, route={"processors": ["innocent", "guilty"]})
    return {**whole, "processor": {"innocent": {"type": "idle"}, "guilty": {"type": "blocking"}}}


@asynccontextmanager
async def watched(proxy: Proxy) -> AsyncIterator[Lag]:
    proxy.server._lag.stop()  # its lines would be among ours
    lag = Lag(lambda: proxy.gateway)
    lag.start()
    try:
        yield lag
    finally:
        lag.stop()


@asynccontextmanager
async def serving(where: Where) -> AsyncIterator[Client]:
    script = stream(chat_chunk("Hello")) if where.place in ("watcher", "replace") else reply(completion("Hello"))
    async with (
        Upstream(script) as upstream,
        Proxy(mapping(upstream.base_url), plugins=[Blocking(where)]) as proxy,
        connected(proxy.port) as client,
        watched(proxy),
    ):
        yield client


# -- who -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["call", "after", "finish", "watcher", "replace"])
async def test_a_processor_that_blocks_is_named_while_it_does(place: str, said: Said) -> None:
    async with serving(Where(said.block_until_accused, place)) as client:
        answer = await ask(client, post(STREAM if place in ("watcher", "replace") else HELLO))

    line = said.accused[0]
    assert answer.status == 200
    assert line["by"] == f"processor 'guilty' ({PLUGIN})"
    assert re.fullmatch(r"test_watchdog\.py:\d+ in \w+", line["at"])
    assert 0.25 <= line["for_s"] <= AT_MOST_S


async def test_time_sleep_in_a_processor_is_named(said: Said) -> None:
    def block() -> None:
        until = time.monotonic() + AT_MOST_S
        while not said.accused and time.monotonic() < until:
            time.sleep(0.05)  # noqa: TID251 - what plugins do that block

    async with serving(Where(block, "call")) as client:
        await ask(client, post())

    assert said.accused[0]["by"] == f"processor 'guilty' ({PLUGIN})"
    assert said.accused[0]["at"].endswith(" in block")


@pytest.mark.parametrize("place", ["function", "task"])
async def test_where_only_the_code_tells_the_plugin_is_named(place: str, said: Said) -> None:
    """A function that knows no processor, called when none runs: two of the plugin's types are configured."""
    async with serving(Where(said.block_until_accused, place)) as client:
        await ask(client, post())

    assert said.accused[0]["by"] == PLUGIN


async def test_an_endpoint_that_blocks_is_named(said: Said) -> None:
    async def handle(asked: EndpointRequest) -> EndpointReply:
        said.block_until_accused()
        return EndpointReply(b"{}")

    plugin = Serves(Endpoint("GET", "/slow", handle))
    async with (
        Proxy(openai_at("http://127.0.0.1:9/v1"), plugins=[plugin]) as proxy,
        connected(proxy.port) as client,
        watched(proxy),
    ):
        assert (await ask(client, request("GET", "/slow"))).status == 200

    assert said.accused[0]["by"] == "endpoint GET /slow (plugin tests.llmproxy_server.edging.Serves)"


async def test_a_call_in_c_that_keeps_the_interpreter_is_named_at_its_end(said: Said) -> None:
    """No thread runs meanwhile. It has waited for the interpreter, and has it before the loop does."""
    numbers = range(40_000_000)

    def block() -> None:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            sum(numbers)

    async with serving(Where(block, "call")) as client:
        await ask(client, post())

    assert said.accused[0]["by"] == f"processor 'guilty' ({PLUGIN})"


# -- the thread ------------------------------------------------------------------------------------------------------


def test_a_loop_in_which_nothing_runs_is_nobodys_fault() -> None:
    """A process that was stopped, or starved: the thread of its loop waits where it always does."""
    entered, leave = threading.Event(), threading.Event()

    async def idle() -> None:
        asyncio.get_running_loop().call_soon(entered.set)
        await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=asyncio.run, args=[idle()])
    thread.start()
    try:
        assert entered.wait(AT_MOST_S)
        assert _settles(lambda: _culprit_in(thread) == Culprit(NOBODY, None))
    finally:
        leave.set()
        thread.join()


def _culprit_in(thread: threading.Thread) -> Culprit:
    import sys

    assert thread.ident is not None

    def no_gateway() -> Any:
        return None

    return Suspects(no_gateway).culprit(sys._current_frames()[thread.ident])


def _settles(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + AT_MOST_S
    while time.monotonic() < until:
        try:
            if holds():
                return True
        except AttributeError:  # it was still on its way, and there is no gateway
            pass
    return False


class Clock:
    """Moved by the test; the thread waits in real time."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def dog(culprit: Callable[[FrameType], Culprit], clock: Clock) -> Iterator[Watchdog]:
    it = Watchdog(culprit, period_s=0.0, late_s=0.02, clock=clock)
    it.start(clock.now)
    try:
        yield it
    finally:
        it.stop()


def test_it_says_so_once_for_a_block_and_again_for_the_next(said: Said) -> None:
    clock, looked = Clock(), threading.Semaphore(0)

    def culprit(frame: FrameType) -> Culprit:
        looked.release()
        return Culprit("somebody", "x.py:1")

    with dog(culprit, clock) as it:
        clock.now += 1
        said.block_until(BLOCKED)
        clock.now += 5
        it.beat(clock.now)
        clock.now += 1
        said.block_until(BLOCKED, 2)

    assert [line["for_s"] for line in said.of(BLOCKED)] == [1.0, 1.0]
    assert looked.acquire(timeout=0)
    assert looked.acquire(timeout=0)
    assert not looked.acquire(timeout=0)


def test_blocks_that_follow_each_other_are_a_line_a_second(said: Said) -> None:
    clock, found = Clock(), threading.Semaphore(0)

    def culprit(frame: FrameType) -> Culprit:
        found.release()
        return Culprit("somebody", None)

    with dog(culprit, clock) as it:
        clock.now += 0.5
        said.block_until(BLOCKED)
        assert found.acquire(timeout=AT_MOST_S)
        it.beat(clock.now)
        clock.now += 0.5  # half a second after that line
        assert found.acquire(timeout=AT_MOST_S)
        assert len(said.of(BLOCKED)) == 1
        clock.now += 0.75  # it goes on, and is told of then
        said.block_until(BLOCKED, 2)

    assert [line["for_s"] for line in said.of(BLOCKED)] == [0.5, 1.25]


def test_what_it_cannot_understand_does_not_end_it(said: Said) -> None:
    clock = Clock()

    def culprit(frame: FrameType) -> Culprit:
        raise KeyError("a race")

    with dog(culprit, clock):
        clock.now += 1
        said.block_until(BLOCKED)

    assert said.of(BLOCKED)[0]["by"] == "somebody who could not be found out (KeyError)"


def test_who_is_seen_after_the_loop_has_turned_is_not_accused(said: Said) -> None:
    clock, asked = Clock(), threading.Event()

    def culprit(frame: FrameType) -> Culprit:
        it.beat(clock.now)  # just now
        asked.set()
        return Culprit("an innocent", None)

    with dog(culprit, clock) as it:
        clock.now += 1
        assert asked.wait(AT_MOST_S)

    assert it.finding is None
    assert not said.of(BLOCKED)


def test_it_ends_when_it_is_told_to() -> None:
    with dog(lambda frame: Culprit("nobody", None), Clock()) as it:
        names = [thread.name for thread in threading.enumerate()]

    assert "llmproxy-watchdog" in names
    assert "llmproxy-watchdog" not in [thread.name for thread in threading.enumerate()]
    it.stop()


async def test_it_does_nothing_while_the_loop_turns(said: Said) -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, watched(proxy):
        await asyncio.sleep(3 * PERIOD_S)

    assert not said.accused
