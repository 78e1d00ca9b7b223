"""Reloads while calls of every kind are under way: none of them fails, and nothing grows."""

import asyncio
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from llmproxy_core.gateway import Gateway
from tests.llmproxy_server.edging import HELLO, STREAM, ask, chunks, head, many, post
from tests.llmproxy_server.reloading import Reloadable
from tests.llmproxy_server.transporting import until
from tests.proxy import openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import Call, Chunk, End, Head, Upstream, Wait, chat_chunk, completion, reply, sse, stream

CLIENTS = 8
LONG = 4
ONE = sse(chat_chunk("one"), done=False)
REST = sse(chat_chunk(None, finish="stop"))
WHOLE = sse(chat_chunk("a"), chat_chunk(None, finish="stop"))
BAD: list[str | bytes] = ["", "route = [", 'llm = "x"\n', b"\xff\xfe\x00"]


@attrs.define
class Load:
    """What clients that never pause have seen."""

    served: int = 0
    failed: list[object] = attrs.field(factory=list)
    ended: bool = False

    async def call(self, client: Client) -> None:
        """Plain and streamed calls in turn, over one connection."""
        while not self.ended:
            for asked, right in ((HELLO, lambda got: got.json["object"] == "chat.completion"), (STREAM, is_whole)):
                got = await ask(client, post(asked))
                self.served += 1
                if got.status != 200 or not got.complete or not right(got):
                    self.failed.append(got)


def is_whole(got: Any) -> bool:
    return bool(got.body == WHOLE)


async def answering(call: Call) -> None:
    """A plain answer or a stream, as the request wants."""
    body = json.loads(call.received.body)
    await call.play(*(stream(chat_chunk("a"), chat_chunk(None, finish="stop")) if body.get("stream") else PLAIN))


PLAIN = reply(completion("Hello"))


def mappings(base_url: str, elsewhere: str) -> Callable[[int], dict[str, Any]]:
    """The configuration number n; each differs from the one before it."""

    def mapping(n: int) -> dict[str, Any]:
        made = openai_at(base_url)
        made["processor"] = {"answers": {"type": "cache", "ttl_s": 600 + n % 2}}
        made["llm"]["other"] = {"provider": "openai", "base_url": elsewhere, "pool": {"max_connections": 10 + n % 3}}
        made["route"] += [
            {"path_prefix": "/long", "target_llm": "other"},
            {"path_prefix": f"/changing-{n % 5}", "target_llm": "openai", "processors": ["answers"]},
            {"path_prefix": "/kept", "target_llm": "openai", "processors": ["kept"]},
        ]
        made["processor"]["kept"] = {"type": "cache"}
        return with_server(made, max_in_flight=1000 + n)

    return mapping


async def reload_under_load(folder: Path, reloads: int, measure: Callable[[int], None] = lambda n: None) -> Load:
    """Every tenth reload is of a broken file, every tenth of an identical one."""
    go_on = asyncio.Event()
    load = Load()
    async with (
        Upstream(answering) as upstream,
        Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()], timeout_s=600) as endless,
        Reloadable(folder, mappings(upstream.base_url, endless.base_url)(0)) as proxy,
        many(proxy.port, CLIENTS) as clients,
        many(proxy.port, LONG) as patient,
        connected(proxy.port) as asking,
    ):
        mapping = mappings(upstream.base_url, endless.base_url)
        for client in patient[: LONG // 2]:
            client.send(post(STREAM, "/long/v1/chat/completions"))
            assert (await head(client)).status == 200
        same = {**HELLO, "temperature": 0, "n": 1}
        assert (await ask(asking, post(same, "/kept/v1/chat/completions"))).status == 200
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(load.call(client))
            good = 0
            for n in range(1, reloads + 1):
                served = load.served
                if n % 10 == 5:
                    proxy.write_text(BAD[n // 10 % len(BAD)])
                    assert not (await proxy.reload()).ok
                elif n % 10 == 7:
                    assert (await proxy.reload(mapping(good))).unchanged
                else:
                    good = n
                    assert (await proxy.reload(mapping(n))).ok
                if n == reloads // 2:  # in the middle of it all
                    for client in patient[LONG // 2 :]:
                        client.send(post(STREAM, "/long/v1/chat/completions"))
                        assert (await head(client)).status == 200
                await until(lambda served=served: load.served > served)  # type: ignore[misc]
                proxy.exchanges.clear()
                upstream.requests.clear()
                measure(n)
            load.ended = True
        go_on.set()
        assert [await chunks(client) for client in patient] == [(ONE + REST, True)] * LONG
        kept = await ask(asking, post(same, "/kept/v1/chat/completions"))
        assert (kept.status, kept["x-llmproxy-cache"]) == (200, "hit")
        assert upstream.connections_total <= CLIENTS + 1  # the pool was never made anew
        await until(lambda: len(proxy.server.generations) == 1)
    return load


def gateways() -> int:
    gc.collect()
    return sum(isinstance(it, Gateway) for it in gc.get_objects())


async def test_two_hundred_reloads_under_load_cost_no_call(tmp_path: Path) -> None:
    before = gateways()
    found: list[int] = []

    def measure(n: int) -> None:
        if n % 50 == 0:
            found.append(gateways() - before)

    load = await reload_under_load(tmp_path, 200, measure)

    assert load.failed == []
    assert load.served >= 200
    # The current one, those of the long streams, and one whose last call has just ended.
    assert max(found) <= 5, found
    assert gateways() <= before + 1


def resident_mb() -> float:
    """What this process holds in memory (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_thousand_reloads_leave_memory_flat(tmp_path: Path) -> None:
    held: list[float] = []

    def measure(n: int) -> None:
        if n % 100 == 0:
            gc.collect()
            held.append(resident_mb())

    load = await reload_under_load(tmp_path, 1000, measure)

    print(f"{load.served} calls, 1000 reloads, MB after each 100: {[round(it) for it in held]}")  # noqa: T201 - the figures are what a soak is for
    assert load.failed == []
    assert held[-1] - held[2] < 8, held  # warm after three hundred
