"""Callers take turns at an LLM that is full, however many calls one of them has there."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from llmproxy_core import Exchange, Handler, Response
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.groups.places import Places
from tests.exact import Seen, parse
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.edging import Processing, processed
from tests.llmproxy_server.reloading import Reloadable
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, with_server
from tests.resilience.flocks import one, says
from tests.upstream import Call, Upstream

LONG_S = 20.0
HERE = "127.0.0.1"
many_addresses = pytest.mark.skipif(sys.platform != "linux", reason="only there 127.0.0.2 is the machine's own as well")


class Crowd:
    """A proxy with one LLM, which holds its calls until `may_go_on`, and clients; all is over when it is left."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        """*keys* are those of the LLM."""
        self.may_go_on = asyncio.Event()
        self.upstream = Upstream(self._hold)
        self._folder = folder
        self._keys = {"max_in_flight": 1, "max_queued": 50, "queue_timeout_s": LONG_S, **keys}
        self._leaving = AsyncExitStack()

    async def _hold(self, call: Call) -> None:
        async with asyncio.timeout(LONG_S):
            await self.may_go_on.wait()
        await call.play(*says("hello"))

    async def __aenter__(self) -> Self:
        await self._leaving.enter_async_context(self.upstream)
        self.proxy = await self._leaving.enter_async_context(Reloadable(self._folder, self._mapping(**self._keys)))
        self._clients = await self._leaving.enter_async_context(asyncio.TaskGroup())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.may_go_on.set()
        await self._leaving.__aexit__(kind, error, trace)

    def _mapping(self, **keys: Any) -> dict[str, Any]:
        return with_server(one(self.upstream, tried=False, **keys), trusted_proxies=[HERE])

    async def reload(self, **keys: Any) -> None:
        assert (await self.proxy.reload(self._mapping(**{**self._keys, **keys}))).ok

    def call(self, name: str, *headers: str, address: str = HERE) -> asyncio.Task[Seen]:
        """A client at *address* calls as the user *name*."""
        return self._clients.create_task(ask(self.proxy.port, name, *headers, address=address))

    async def come(self, name: str, *headers: str, address: str = HERE) -> asyncio.Task[Seen]:
        """As `call`; it is at the LLM, or waits, when this returns."""
        before = self.counts
        task = self.call(name, *headers, address=address)
        await until(lambda: self.counts != before)
        return task

    @property
    def places(self) -> Places:
        return next(it.places for it in layers(self.proxy.server.gateway.llms["a"]) if isinstance(it, Guarded))

    @property
    def counts(self) -> tuple[int, int]:
        """How many calls are at the LLM, and how many wait."""
        return self.places.in_flight, self.places.waiting

    @property
    def served(self) -> list[str]:
        """Whose calls the LLM got, in that order."""
        return [json.loads(it.body)["user"] for it in self.upstream.requests]


async def ask(port: int, name: str, *headers: str, address: str = HERE) -> Seen:
    """One call, from *address*, of the user *name*."""
    body = question(user=name)
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "connection: close", *headers]
    lines += ["content-type: application/json", f"content-length: {len(body)}"]
    async with asyncio.timeout(LONG_S):
        reader, writer = await asyncio.open_connection(HERE, port, local_addr=(address, 0))
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            return parse(await reader.read())
        finally:
            writer.close()
            await writer.wait_closed()


Come = Callable[[Crowd, str, int], Awaitable[asyncio.Task[Seen]]]


async def connected_from(crowd: Crowd, name: str, caller: int) -> asyncio.Task[Seen]:
    return await crowd.come(name, address=f"127.0.0.{caller}")


async def forwarded_for(crowd: Crowd, name: str, caller: int) -> asyncio.Task[Seen]:
    return await crowd.come(name, f"x-forwarded-for: 192.0.2.{caller}")


@pytest.mark.parametrize("come", [pytest.param(connected_from, marks=many_addresses), forwarded_for])
async def test_a_caller_with_two_calls_is_served_among_the_first_of_another_with_thirty(
    come: Come, tmp_path: Path
) -> None:
    async with Crowd(tmp_path) as crowd:
        many = [await come(crowd, f"greedy {number}", 1) for number in range(30)]
        few = [await come(crowd, f"modest {number}", 2) for number in range(2)]
        assert crowd.counts == (1, 31)

        crowd.may_go_on.set()

        assert [(await it).status for it in [*many, *few]] == [200] * 32
        assert crowd.served[:5] == ["greedy 0", "modest 0", "greedy 1", "modest 1", "greedy 2"]
        assert crowd.served[5:] == [f"greedy {number}" for number in range(3, 30)]
        await until(lambda: crowd.counts == (0, 0))


async def test_a_full_queue_makes_room_for_another_caller_and_tells_who_had_most(tmp_path: Path) -> None:
    async with Crowd(tmp_path, max_queued=2) as crowd:
        first, second, third = [await forwarded_for(crowd, f"greedy {number}", 1) for number in range(3)]
        other = crowd.call("modest", "x-forwarded-for: 192.0.2.2")

        displaced = await third
        refused = await crowd.call("greedy 3", "x-forwarded-for: 192.0.2.1")

        said = [json.loads(it.body)["error"] for it in (displaced, refused)]
        assert [(it.status, it.header("retry-after")) for it in (displaced, refused)] == [(503, "1")] * 2
        assert [it["code"] for it in said] == ["llm_full"] * 2
        full = "The LLM 'a' serves as many calls as it may"
        assert [it["message"] for it in said] == [f"{full}, and too many of yours wait for it", full]
        crowd.may_go_on.set()
        assert [(await it).status for it in (first, second, other)] == [200] * 3
        assert crowd.served == ["greedy 0", "modest", "greedy 1"]


async def test_who_waits_too_long_is_told_by_which_clock(tmp_path: Path) -> None:
    async with Crowd(tmp_path, queue_timeout_s=0.3) as crowd:
        first = await crowd.come("first")

        late = await crowd.call("late")
        hasty = await crowd.call("hasty", "x-llmproxy-timeout-ms: 150")

        said = [json.loads(it.body)["error"] for it in (late, hasty)]
        assert [it["code"] for it in said] == ["llm_full"] * 2
        assert "in time (queue_timeout_s)" in said[0]["message"]
        assert "before its deadline" in said[1]["message"]
        assert crowd.counts == (1, 0)
        crowd.may_go_on.set()
        assert (await first).status == 200


async def test_who_waits_is_let_in_by_the_first_call_after_a_reload_that_makes_room(tmp_path: Path) -> None:
    async with Crowd(tmp_path) as crowd:
        calls = [await crowd.come(f"u{number}") for number in range(4)]
        assert crowd.counts == (1, 3)

        await crowd.reload(max_in_flight=5)
        calls.append(await crowd.come("u4"))

        await until(lambda: crowd.counts == (5, 0))
        crowd.may_go_on.set()
        assert [(await it).status for it in calls] == [200] * 5


async def test_who_waits_for_a_drained_llm_is_told_when_its_turn_comes(tmp_path: Path) -> None:
    async with Crowd(tmp_path) as crowd:
        first, second, third = [await crowd.come(f"u{number}") for number in range(3)]

        crowd.places.drained = True
        crowd.may_go_on.set()

        assert (await first).status == 200
        said = [json.loads((await it).body)["error"]["code"] for it in (second, third)]
        assert said == ["llm_drained"] * 2
        await until(lambda: crowd.counts == (0, 0))
        assert crowd.served == ["u0"]


async def test_an_answer_that_was_read_holds_no_place_while_processors_work_on_it() -> None:
    at_work, may_go_on = asyncio.Event(), asyncio.Event()

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        if not at_work.is_set():
            at_work.set()
            await may_go_on.wait()
        return response

    async with Upstream(says("hello")) as upstream:
        mapping = processed(one(upstream, tried=False, max_in_flight=1, max_queued=0))
        async with Proxy(mapping, plugins=[Processing(around)]) as proxy, asyncio.TaskGroup() as clients:
            first = clients.create_task(ask(proxy.port, "first"))
            await at_work.wait()
            second = await ask(proxy.port, "second")
            may_go_on.set()

    assert (second.status, (await first).status) == (200, 200)
