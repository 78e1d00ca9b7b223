"""Several caches, several routes: what may share and what must not."""

from __future__ import annotations

from typing import Any

from test_cache_kit import Cached, caching, deleted, reply_in, status

from llmproxy_core import Exchange, GuardrailBlocked, Handler, Money, Response, Usage
from llmproxy_core.text import Replace, WordWatcher
from tests.answers import completion, reply
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.edging import Processing
from tests.upstream import Upstream

PLAIN = reply(completion("my secret"))
SECOND = {"second": {"type": "cache", "ttl_s": 7200}}


async def _hide(exchange: Exchange, call_next: Handler) -> Response:
    response = await call_next(exchange)
    response.rewrite(lambda channel: Replace({"secret": "hidden, no secret"}))
    return response


async def _guard(exchange: Exchange, call_next: Handler) -> Response:
    def block(word: str) -> None:
        raise GuardrailBlocked("Not allowed")

    response = await call_next(exchange)
    response.watch(lambda channel: WordWatcher(["secret"], block))
    return response


def two_caches(base_url: str, **keys: Any) -> dict[str, Any]:
    return caching(base_url, chain=["cache", "around", "second"], tables=SECOND, **keys)


async def test_two_caches_of_a_route_keep_what_comes_to_each() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Cached(two_caches(upstream.base_url, ttl_s=60), plugins=[Processing(_hide)]) as proxy,
    ):
        seen = [await proxy.ask(question())]
        proxy.wall.now += 61  # only the inner one has it still
        seen.append(await proxy.ask(question()))
        seen.append(await proxy.ask(question()))
        kept = deleted(await proxy.purge())

    assert [status(it) for it in seen] == ["miss", "miss", "hit"]
    assert [reply_in(it).text for it in seen] == ["my hidden, no secret"] * 3
    assert len(upstream.requests) == 1
    assert kept == 2
    assert [(it.usage, it.cost) for it in proxy.outcomes] == [
        (Usage(9, 3), Money(15_000)),
        (None, Money(0)),
        (None, Money(0)),
    ]
    assert proxy.statuses() == ["miss", "miss", "hit"]


async def test_what_a_guard_between_two_caches_refuses_never_passes_it() -> None:
    """The inner cache keeps it: rightly, since nobody below has refused it."""
    async with (
        Upstream(PLAIN) as upstream,
        Cached(two_caches(upstream.base_url), plugins=[Processing(_guard)]) as proxy,
    ):
        seen = [await proxy.ask(question()) for _ in range(3)]

    assert [status(it) for it in seen] == ["miss"] * 3
    assert all(b"guardrail_blocked" in it.body and b"secret" not in it.body for it in seen)
    assert len(upstream.requests) == 1


async def test_two_caches_of_a_route_serve_one_answer_in_both_forms() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Cached(two_caches(upstream.base_url), plugins=[Processing(_hide)]) as proxy,
    ):
        seen = [await proxy.ask(question(stream=it)) for it in (True, False)]

    assert [status(it) for it in seen] == ["miss", "hit"]
    assert [reply_in(it).text for it in seen] == ["my hidden, no secret"] * 2


def two_routes(base_url: str, first: list[str], second: list[str]) -> dict[str, Any]:
    mapping = caching(base_url, chain=["cache", "around"])
    routes = [
        {"path_prefix": prefix, "strip_prefix": prefix, "target_llm": "openai", "processors": chain}
        for prefix, chain in (("/a", first), ("/b", second))
    ]
    return {**mapping, "route": routes}


async def test_routes_with_other_processors_below_never_share() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Cached(two_routes(upstream.base_url, ["cache"], ["cache", "around"]), plugins=[Processing(_hide)]) as proxy,
    ):
        seen = [await proxy.ask(question(), path=f"/{name}/v1/chat/completions") for name in "abab"]

    assert [status(it) for it in seen] == ["miss", "miss", "hit", "hit"]
    assert [reply_in(it).text for it in seen] == ["my secret", "my hidden, no secret"] * 2


async def test_routes_to_other_llms_never_share() -> None:
    async with Upstream(PLAIN) as one, Upstream(reply(completion("another's"))) as two:
        mapping = two_routes(one.base_url, ["cache"], ["cache"])
        mapping["llm"]["second"] = {**mapping["llm"]["openai"], "base_url": two.base_url}
        mapping["route"][1]["target_llm"] = "second"
        mapping["processor"].pop("around")
        async with Cached(mapping) as proxy:
            seen = [await proxy.ask(question(), path=f"/{name}/v1/chat/completions") for name in "abab"]

    assert [status(it) for it in seen] == ["miss", "miss", "hit", "hit"]
    assert [reply_in(it).text for it in seen] == ["my secret", "another's"] * 2
