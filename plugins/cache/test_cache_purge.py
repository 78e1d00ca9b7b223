"""`DELETE /api/cache`."""

from __future__ import annotations

import asyncio
import json

import pytest
from test_cache_kit import Cached, caching, deleted, listening, reply_in, status

from tests.answers import chat_chunk, completion, reply, sse
from tests.exact import ask
from tests.llmproxy_core.conversation import question
from tests.script import Chunk, End, Head, Reached, Step, Wait
from tests.upstream import Upstream

PLAIN = reply(completion("Hello", model="m-2026-01-01"))


def of(model: str, seed: int = 0) -> bytes:
    return question(model=model, seed=seed)


async def test_all_are_forgotten() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        for seed in range(3):
            await proxy.ask(of("m", seed))

        found = [deleted(await proxy.purge()) for _ in range(2)]
        again = await proxy.ask(of("m"))

    assert found == [3, 0]
    assert status(again) == "miss"


@pytest.mark.parametrize("name", ["m", "m-2026-01-01"], ids=["as asked", "as answered"])
async def test_those_of_a_model_are_forgotten(name: str) -> None:
    async with Upstream() as upstream, Cached(caching(upstream.base_url)) as proxy:
        upstream.then(PLAIN, PLAIN, reply(completion("Hello", model="other")))
        for model, seed in (("m", 0), ("m", 1), ("n", 0)):
            await proxy.ask(of(model, seed))

        found = deleted(await proxy.purge(f"model={name}"))
        upstream.script = PLAIN
        again = [status(await proxy.ask(of(model))) for model in ("m", "n")]

    assert found == 2
    assert again == ["miss", "hit"]


async def test_a_model_whose_name_needs_escapes_is_found() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(of("org/m & n+1"))
        assert deleted(await proxy.purge("model=org/m%20%26+n%2B1")) == 1


async def test_one_is_forgotten_by_its_key() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        seen = [await proxy.ask(of("m", seed)) for seed in range(2)]
        key = seen[0].header("x-llmproxy-cache-key")

        found = [deleted(await proxy.purge(f"key={key}")) for _ in range(2)]
        again = [status(await proxy.ask(of("m", seed))) for seed in range(2)]

    assert found == [1, 0]
    assert again == ["miss", "hit"]


@pytest.mark.parametrize(
    "query",
    ["model", "model=", "key=", "model=a&key=b", "model=a&model=b", "mdel=a", "all=1", "=", "&", "model=a&x=1", "%"],
)
async def test_a_slip_of_the_pen_empties_nothing(query: str) -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(of("m"))
        seen = await proxy.purge(query)
        again = await proxy.ask(of("m"))

    assert seen.status == 400
    assert json.loads(seen.body)["error"]["code"]
    assert status(again) == "hit"


async def test_only_who_sits_at_the_machine_may() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(of("m"))
        seen = await ask("DELETE", f"{proxy.url}/api/cache", b"", [("x-forwarded-for", "203.0.113.9")])
        again = await proxy.ask(of("m"))

    assert seen.status == 403
    assert status(again) == "hit"


async def test_other_methods_are_none() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        assert [(await ask(method, f"{proxy.url}/api/cache")).status for method in ("GET", "POST")] == [405, 405]


async def test_without_a_cache_there_is_nothing_to_forget() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url, chain=[])) as proxy:
        assert deleted(await proxy.purge()) == 0


async def test_all_caches_are_emptied() -> None:
    tables = {"second": {"type": "cache", "ttl_s": 5, "store": "other"}}
    mapping = caching("http://localhost:1", chain=["cache", "second"], tables=tables)
    async with Upstream(PLAIN) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        mapping["store"] = {"memory": {"type": "memory"}, "other": {"type": "memory"}}
        async with Cached(mapping) as proxy:
            await proxy.ask(of("m"))

            assert deleted(await proxy.purge()) == 2
            assert status(await proxy.ask(of("m"))) == "miss"
            assert len(upstream.requests) == 2


# -- while a call is under way -----------------------------------------------------------------------------------------


def half_way(reached: asyncio.Event, go_on: asyncio.Event) -> list[Step]:
    begun = chat_chunk("old ", model="m-2026-01-01")
    rest = sse(chat_chunk("answer"), chat_chunk(None, finish="stop"))
    return [Head(), Chunk(sse(begun, done=False)), Reached(reached), Wait(go_on), Chunk(rest), End()]


@pytest.mark.parametrize("query", ["", "model=m", "model=m-2026-01-01", "key"])
async def test_what_is_under_way_is_brought_to_its_end_and_not_kept(query: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    body, streamed = question(model="m"), question(model="m", stream=True)
    async with Upstream() as upstream, Cached(caching(upstream.base_url)) as proxy:
        upstream.then(half_way(reached, go_on), reply(completion("new answer")))
        async with listening(proxy, streamed) as client:
            await client.until(b"old ")
            key = dict(proxy.exchanges[0].response_headers)["x-llmproxy-cache-key"]
            assert deleted(await proxy.purge(f"key={key}" if query == "key" else query)) == 0
            anew = await proxy.ask(body)
            go_on.set()
            old = await client.rest()
        later = await proxy.ask(body)

    assert (old.whole, reply_in(old).text) == (True, "old answer")
    assert [status(it) for it in (anew, later)] == ["miss", "hit"]
    assert [reply_in(it).text for it in (anew, later)] == ["new answer", "new answer"]


async def test_what_turns_out_to_be_of_a_forgotten_model_is_not_kept() -> None:
    """Its name comes with the answer, after it was to be forgotten."""
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *PLAIN]) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(proxy.ask(of("m")))
            await upstream.received()
            await proxy.purge("model=m-2026-01-01")
            await proxy.purge("model=other")
            go_on.set()
        again = await proxy.ask(of("m"))

    assert asked.result().status == 200
    assert status(again) == "miss"


async def test_another_model_or_key_leaves_what_is_under_way_alone() -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *PLAIN]) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with asyncio.TaskGroup() as group:
            group.create_task(proxy.ask(of("m")))
            await upstream.received()
            await proxy.purge("model=n")
            await proxy.purge("key=0123")
            go_on.set()
        assert status(await proxy.ask(of("m"))) == "hit"
