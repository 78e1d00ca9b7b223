"""A store that fails: the call goes on without it, and it is told once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

import attrs
import pytest
from llmproxy_cache.entry import Entry
from test_cache_kit import Cached, caching, reply_in, status

from llmproxy_core import Counter, KeyValue, Ledger, Services, Store, StoreType, StoreUnavailable, hookimpl
from llmproxy_core.memory import MemoryConfig, MemoryStore
from tests.answers import chat_chunk, completion, reply, stream, usage_chunk
from tests.llmproxy_core.conversation import question
from tests.upstream import Upstream

PLAIN = reply(completion("Hello"))
STREAM = stream(chat_chunk("Hello"), chat_chunk(None, finish="stop"), usage_chunk())
Act = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""What a method of the store does, given what it should do."""


class Broken:
    """A plugin with a store type `broken`, which keeps in memory and fails as a test says."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}
        self.asked: list[str] = []
        self.kept: KeyValue | None = None

    @hookimpl
    def llmproxy_stores(self) -> Iterable[StoreType[Any]]:
        def build(config: MemoryConfig, services: Services) -> Store:
            return _Store(self, MemoryStore(config, services.now))

        return [StoreType("broken", MemoryConfig, build)]

    async def do(self, name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        self.asked.append(name)
        return await (self.acts[name](act) if name in self.acts else act())


@attrs.frozen
class _Store:
    plugin: Broken
    memory: MemoryStore

    def key_value(self, space: str, *, max_bytes: int) -> KeyValue:
        self.plugin.kept = self.memory.key_value(space, max_bytes=max_bytes)
        return _KeyValue(self.plugin, self.plugin.kept)

    def counter(self, space: str) -> Counter:
        return self.memory.counter(space)

    def ledger(self, space: str) -> Ledger:
        return self.memory.ledger(space)

    async def aclose(self) -> None:
        await self.memory.aclose()


@attrs.frozen
class _KeyValue:
    plugin: Broken
    kept: KeyValue

    async def get(self, key: str) -> bytes | None:
        found: bytes | None = await self.plugin.do("get", lambda: self.kept.get(key))
        return found

    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        await self.plugin.do("set", lambda: self.kept.set(key, value, ttl_s=ttl_s, tags=tags))

    async def delete(self, key: str) -> int:
        return int(await self.plugin.do("delete", lambda: self.kept.delete(key)))

    async def delete_tag(self, tag: str) -> int:
        return int(await self.plugin.do("delete_tag", lambda: self.kept.delete_tag(tag)))

    async def clear(self) -> int:
        return int(await self.plugin.do("clear", self.kept.clear))


def raising(error: Exception) -> Act:
    async def act(_: Callable[[], Awaitable[Any]]) -> Any:
        raise error

    return act


async def hanging(_: Callable[[], Awaitable[Any]]) -> Any:
    await asyncio.Event().wait()


def giving(value: object) -> Act:
    async def act(_: Callable[[], Awaitable[Any]]) -> Any:
        return value

    return act


FAILURES: dict[str, Act] = {
    "is down": raising(StoreUnavailable("nobody listens on 10.0.0.1, password hunter2")),
    "has a bug": raising(ZeroDivisionError("a bug")),
    "hangs": hanging,
}


def broken(base_url: str, **keys: Any) -> dict[str, Any]:
    mapping = caching(base_url, store="mine", store_timeout_s=0.05, **keys)
    return {**mapping, "store": {"mine": {"type": "broken"}}}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        it.getMessage() for it in caplog.records if it.name.startswith("llmproxy") and it.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("method", ["get", "set"])
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_without_its_store_every_call_is_a_miss(
    failure: Act, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Broken()
    store.acts[method] = failure
    async with Upstream(PLAIN) as upstream, Cached(broken(upstream.base_url), plugins=[store]) as proxy:
        seen = [await proxy.ask(question()) for _ in range(3)]
        await proxy.until(lambda: not proxy.cache._flights)

    assert [it.status for it in seen] == [200] * 3
    assert status(seen[0]) == "miss"
    assert {status(it) for it in seen} <= {"miss", "shared"}  # who comes while it is written may have it
    assert [reply_in(it).text for it in seen] == ["Hello"] * 3
    (warning,) = told(caplog)
    assert "mine" in warning
    assert "hunter2" not in warning


async def test_a_store_that_comes_back_is_used_again_and_its_next_failure_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Broken()
    async with Upstream(PLAIN) as upstream, Cached(broken(upstream.base_url), plugins=[store]) as proxy:
        statuses = []
        for failing in (False, True, True, False, True):
            store.acts = {"get": FAILURES["is down"], "set": FAILURES["is down"]} if failing else {}
            statuses.append(status(await proxy.ask(question())))

    assert statuses == ["miss", "miss", "miss", "hit", "miss"]
    said = told(caplog)
    assert [sum(verb in it for it in said) for verb in ("read", "write")] == [2, 1]  # the hit wrote nothing


GARBAGE: dict[str, object] = {
    "nothing": b"",
    "garbage": b"\xff\x00garbage",
    "text that is no UTF-8": b"\x92\xb0llmproxy.cache.1\xa1\xff",
    "JSON": b'{"a":1}',
    "text": "not even bytes",
    "a number": 7,
    "another version": bytes(
        Entry(0.0, "openai", "openai.chat", False, b"{}", "application/json", "one", None, ())
    ).replace(b"cache.1", b"cache.0"),
}


@pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE.keys())
async def test_what_is_no_entry_is_a_miss(value: object) -> None:
    store = Broken()
    async with Upstream(PLAIN) as upstream, Cached(broken(upstream.base_url), plugins=[store]) as proxy:
        await proxy.ask(question())
        store.acts["get"] = giving(value)
        spoilt = await proxy.ask(question())
        store.acts.clear()
        healed = await proxy.ask(question())

    assert [status(it) for it in (spoilt, healed)] == ["miss", "hit"]
    assert reply_in(spoilt).text == "Hello"


@pytest.mark.parametrize(("dialect", "api"), [("klingon", "openai.chat"), ("openai", "openai.telepathy")])
async def test_an_entry_in_a_dialect_that_is_not_spoken_here_is_a_miss(dialect: str, api: str) -> None:
    store = Broken()
    async with Upstream(PLAIN) as upstream, Cached(broken(upstream.base_url), plugins=[store]) as proxy:
        found = Entry(proxy.wall(), dialect, api, False, b"{}", "application/json", "one", None, ())
        store.acts["get"] = giving(bytes(found))
        seen = await proxy.ask(question())

    assert status(seen) == "miss"


async def test_an_entry_that_the_store_keeps_too_long_is_a_miss() -> None:
    """The time to live is ours, too: a shorter one holds for what was kept before."""
    store = Broken()
    async with Upstream(PLAIN) as upstream, Cached(broken(upstream.base_url, ttl_s=60), plugins=[store]) as proxy:
        found = Entry(proxy.wall() - 60, "openai", "openai.chat", False, b"{}", "application/json", "one", None, ())
        store.acts["get"] = giving(bytes(found))
        seen = await proxy.ask(question())

    assert status(seen) == "miss"


@pytest.mark.parametrize(
    ("failure", "code"),
    [("is down", "store_unavailable"), ("hangs", "store_unavailable"), ("has a bug", "internal_error")],
)
async def test_who_asks_to_forget_learns_that_it_was_not_done(failure: str, code: str) -> None:
    store = Broken()
    store.acts = dict.fromkeys(("clear", "delete", "delete_tag"), FAILURES[failure])
    async with Upstream(PLAIN) as upstream, Cached(broken(upstream.base_url), plugins=[store]) as proxy:
        seen = [await proxy.purge(query) for query in ("", "model=m", "key=0")]

    assert [it.status for it in seen] == [503 if failure != "has a bug" else 500] * 3
    assert all(code.encode() in it.body for it in seen)


async def test_what_was_to_be_forgotten_while_it_was_written_is_forgotten() -> None:
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(act: Callable[[], Awaitable[Any]]) -> Any:
        writing.set()
        await go_on.wait()
        return await act()

    store = Broken()
    store.acts["set"] = slow
    mapping = broken(PLACEHOLDER, max_entry_bytes=4096)
    mapping["processor"]["cache"]["store_timeout_s"] = 5
    async with Upstream(PLAIN) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Cached(mapping, plugins=[store]) as proxy:
            await proxy.ask(question())
            async with asyncio.timeout(5):
                await writing.wait()
            await proxy.purge()
            go_on.set()
            await proxy.until(lambda: "delete" in store.asked)
            store.acts.clear()
            again = await proxy.ask(question())

    assert status(again) == "miss"


PLACEHOLDER = "http://localhost:1"


@pytest.mark.parametrize("script", [PLAIN, STREAM], ids=["plain", "stream"])
async def test_while_it_is_written_the_answer_can_be_had_all_the_same(script: Any) -> None:
    go_on = asyncio.Event()

    async def slow(act: Callable[[], Awaitable[Any]]) -> Any:
        await go_on.wait()
        return await act()

    store = Broken()
    store.acts["set"] = slow
    mapping = broken(PLACEHOLDER)
    mapping["processor"]["cache"]["store_timeout_s"] = 5
    async with Upstream(script) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Cached(mapping, plugins=[store]) as proxy:
            seen = [await proxy.ask(question(stream=script is STREAM)), await proxy.ask(question())]
            go_on.set()
            await proxy.until(lambda: not proxy.cache._flights)
            seen.append(await proxy.ask(question()))

    assert [status(it) for it in seen] == ["miss", "shared", "hit"]
    assert [reply_in(it).text for it in seen] == ["Hello"] * 3
    assert len(upstream.requests) == 1


async def test_a_store_that_is_slow_to_answer_makes_no_second_call_of_one_question() -> None:
    """All ask the store first, and all are told that there is nothing."""
    arrived = asyncio.Event()
    waiting = list[None]()

    async def together(act: Callable[[], Awaitable[Any]]) -> Any:
        found = await act()
        waiting.append(None)
        if len(waiting) == 20:
            arrived.set()
        await arrived.wait()
        return found

    store = Broken()
    store.acts["get"] = together
    mapping = broken(PLACEHOLDER)
    mapping["processor"]["cache"]["store_timeout_s"] = 5
    async with Upstream(PLAIN) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Cached(mapping, plugins=[store]) as proxy:
            seen = await asyncio.gather(*(proxy.ask(question()) for _ in range(20)))

    assert sorted(str(status(it)) for it in seen) == ["miss", *["shared"] * 19]
    assert len(upstream.requests) == 1
