"""What is kept, for how long, and what never is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from llmproxy_cache.entry import is_worth_keeping
from test_cache_kit import COST, Cached, caching, listening, reply_in, status

from llmproxy_core import End, Exchange, GuardrailBlocked, Handler, KeptBody, Money, Response
from llmproxy_core.chat import FinishReason
from llmproxy_core.text import Replace, WordWatcher
from tests.answers import chat_chunk, completion, error, reply, sse, stream, usage_chunk
from tests.llmproxy_core.conversation import DIALECT, question
from tests.llmproxy_server.edging import Processing
from tests.script import Chunk, Cut, Head, Stall, Step
from tests.script import End as Close
from tests.upstream import Upstream

PLAIN = reply(completion("my secret"))
STREAM = stream(chat_chunk("my se"), chat_chunk("cret"), chat_chunk(None, finish="stop"), usage_chunk())
WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])


def script(*, streamed: bool) -> Sequence[Step]:
    return STREAM if streamed else PLAIN


# -- what never is ---------------------------------------------------------------------------------------------------


def saying(message: dict[str, Any], finish: str | None = "stop") -> dict[str, Any]:
    whole = completion("")
    whole["choices"] = [
        {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    ]
    return whole


def delta(choice: int, finish: str | None = None, **said: object) -> dict[str, Any]:
    return chat_chunk(None) | {"choices": [{"index": choice, "delta": said, "finish_reason": finish}]}


_MIXED = ("stop", "content_filter")
_BODY = json.dumps(completion("Hello")).encode()
_BEGUN = Chunk(sse(chat_chunk("Hello"), done=False))
NEVER: dict[str, tuple[bool, Sequence[Step]]] = {
    "an error": (False, reply(error("overloaded"), 500)),
    "too many requests": (False, reply(error("slow down"), 429)),
    "an error with status 200": (False, reply(error("overloaded"))),
    "cut in a plain answer": (False, [Head(framing=len(_BODY)), Chunk(_BODY[:-9]), Cut()]),
    "no JSON": (False, reply(b"<html>")),
    "JSON that is no answer": (False, reply({"id": "x"})),
    "no choices": (False, reply(completion("") | {"choices": []})),
    "filtered": (False, reply(completion("Hel", finish="content_filter"))),
    "refused": (False, reply(saying({"refusal": "I will not"}))),
    "without an end": (False, reply(saying({"content": "Hel"}, None))),
    "one of two choices filtered": (
        False,
        reply(
            completion("")
            | {"choices": [{"index": n, "message": {"content": "x"}, "finish_reason": _MIXED[n]} for n in (0, 1)]}
        ),
    ),
    "an error instead of a stream": (True, reply(error("overloaded"), 503)),
    "a stream that is cut": (True, [Head(), _BEGUN, Cut()]),
    "a stream that ends early": (True, [Head(), _BEGUN, Close()]),
    "a stream with an error": (True, [Head(), _BEGUN, Chunk(sse(error("overloaded"), done=False)), Close()]),
    "a stream that breaks off with an error": (True, stream(chat_chunk("x"), chat_chunk(None, finish="error"))),
    "a filtered stream": (True, stream(chat_chunk("Hel"), chat_chunk(None, finish="content_filter"))),
    "a refused stream": (True, stream(delta(0, refusal="I will not"), delta(0, "stop"))),
    "a stream without an end of its choice": (True, stream(chat_chunk("Hel"))),
    "a stream that ends one of two": (True, stream(delta(0, content="a"), delta(1, content="b"), delta(1, "stop"))),
    "an empty stream": (True, stream()),
}  # fmt: skip


@pytest.mark.parametrize(("streamed", "steps"), NEVER.values(), ids=NEVER.keys())
async def test_what_is_no_good_answer_is_never_kept(streamed: bool, steps: Sequence[Step]) -> None:
    async with Upstream(steps) as upstream, Cached(caching(upstream.base_url)) as proxy:
        first = await proxy.ask(question(stream=streamed))
        second = await proxy.ask(question(stream=streamed))
        upstream.script = reply(completion("Good"))
        third = await proxy.ask(question())

    assert [status(it) for it in (first, second, third)] == ["miss"] * 3
    assert first.status == second.status
    assert len(upstream.requests) == 3


async def test_an_answer_that_its_only_client_left_is_not_kept() -> None:
    async with Upstream([Head(), _BEGUN, Stall()]) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with listening(proxy, question(stream=True)) as client:
            await client.until(b"Hello")
        await proxy.outcome()
        upstream.script = PLAIN
        seen = await proxy.ask(question())

    assert status(seen) == "miss"


def cutting(word: str) -> Processing:
    """A plugin whose processor blocks answers with *word*."""

    def block(found: str) -> None:
        raise GuardrailBlocked("Not allowed")

    return asking(lambda response: response.watch(lambda channel: WordWatcher([word], block)))


def asking(act: Callable[[Response], object]) -> Processing:
    """A plugin whose processor does one thing with the response."""

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        if isinstance(done := act(response), Awaitable):
            await done
        return response

    return Processing(around)


@WAYS
async def test_what_a_guard_below_refuses_is_not_kept(streamed: bool) -> None:
    async with (
        Upstream(script(streamed=streamed)) as upstream,
        Cached(caching(upstream.base_url, chain=["cache", "around"]), plugins=[cutting("secret")]) as proxy,
    ):
        seen = [await proxy.ask(question(stream=streamed)) for _ in range(2)]

    assert [status(it) for it in seen] == ["miss", "miss"]
    assert all(b"guardrail_blocked" in it.body and b"secret" not in it.body for it in seen)
    assert [it.end for it in proxy.outcomes] == [End.REFUSED] * 2
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("reason", list(FinishReason))
async def test_why_it_ended_decides(reason: FinishReason) -> None:
    """An answer that its `max_tokens` cut is as asked for; one that a filter cut is not."""
    async with (
        Upstream(reply(completion("Hel", finish=reason.value))) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
    ):
        seen = [await proxy.ask(question()) for _ in range(2)]

    good = reason in (FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS)
    assert status(seen[1]) == ("hit" if good else "miss")


async def test_what_nobody_here_can_read_is_not_worth_keeping() -> None:
    assert not await is_worth_keeping(DIALECT, KeptBody("klingon.chat", False, b"{}"))


# -- what processors below and around it do ----------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("then", [False, True], ids=["plain hit", "stream hit"])
async def test_what_is_rewritten_below_is_kept_rewritten(streamed: bool, then: bool) -> None:
    rewritten = list[str]()

    class Counting(Replace):
        def feed(self, text: str) -> str:
            rewritten.append(text)
            return super().feed(text)

    plugin = asking(lambda response: response.rewrite(lambda channel: Counting({"secret": "****"})))
    async with (
        Upstream(script(streamed=streamed)) as upstream,
        Cached(caching(upstream.base_url, chain=["cache", "around"]), plugins=[plugin]) as proxy,
    ):
        miss = await proxy.ask(question(stream=streamed))
        once = "".join(rewritten)
        hit = await proxy.ask(question(stream=then))

    assert [status(it) for it in (miss, hit)] == ["miss", "hit"]
    assert [reply_in(it).text for it in (miss, hit)] == ["my ****", "my ****"]
    assert "".join(rewritten) == once == "my secret"


@WAYS
@pytest.mark.parametrize("then", [False, True], ids=["plain hit", "stream hit"])
async def test_a_filter_around_it_works_on_hits(streamed: bool, then: bool) -> None:
    plugin = asking(lambda response: response.rewrite(lambda channel: Replace({"secret": "****"})))
    async with (
        Upstream(script(streamed=streamed)) as upstream,
        Cached(caching(upstream.base_url, chain=["around", "cache"]), plugins=[plugin]) as proxy,
    ):
        seen = [await proxy.ask(question(stream=it)) for it in (streamed, then)]

    assert [status(it) for it in seen] == ["miss", "hit"]
    assert [reply_in(it).text for it in seen] == ["my ****"] * 2


@WAYS
@pytest.mark.parametrize("then", [False, True], ids=["plain hit", "stream hit"])
async def test_a_guard_around_it_works_on_hits(streamed: bool, then: bool) -> None:
    def block(found: str) -> None:
        raise GuardrailBlocked("Not allowed")

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        if "x-guarded" in exchange.request.headers:
            response.watch(lambda channel: WordWatcher(["secret"], block))
        return response

    async with (
        Upstream(script(streamed=streamed)) as upstream,
        Cached(caching(upstream.base_url, chain=["around", "cache"]), plugins=[Processing(around)]) as proxy,
    ):
        await proxy.ask(question(stream=streamed))
        seen = await proxy.ask(question(stream=then), ("x-guarded", "yes"))

    assert b"guardrail_blocked" in seen.body
    assert b"secret" not in seen.body
    assert proxy.statuses() == ["miss", "hit"]
    assert proxy.outcomes[1].end is End.REFUSED


async def test_a_stream_that_a_guard_around_it_stops_is_not_kept() -> None:
    """Nobody else reads it, so the provider need not go on."""
    steps: list[Step] = [Head(), Chunk(sse(chat_chunk("my secret"), done=False)), Stall()]
    async with (
        Upstream(steps) as upstream,
        Cached(caching(upstream.base_url, chain=["around", "cache"]), plugins=[cutting("secret")]) as proxy,
    ):
        seen = await proxy.ask(question(stream=True))
        async with asyncio.timeout(5):
            await upstream.requests[0].gone.wait()
        upstream.script = PLAIN
        again = await proxy.ask(question(stream=True))

    assert b"guardrail_blocked" in seen.body
    assert status(again) == "miss"


@WAYS
async def test_an_answer_that_a_processor_below_has_read_is_kept_as_well(streamed: bool) -> None:
    plugin = asking(lambda response: response.reply())
    async with (
        Upstream(script(streamed=streamed)) as upstream,
        Cached(caching(upstream.base_url, chain=["cache", "around"]), plugins=[plugin]) as proxy,
    ):
        seen = [await proxy.ask(question(stream=streamed)) for _ in range(2)]

    assert [status(it) for it in seen] == ["miss", "hit"]
    assert [reply_in(it).text for it in seen] == ["my secret"] * 2


@WAYS
@pytest.mark.parametrize("how", ["child", "detach"])
async def test_the_answer_of_another_exchange_is_kept_as_well(streamed: bool, how: str) -> None:
    """A processor below that asks in its own name, and answers with that."""

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        make = exchange.child if how == "child" else exchange.detach
        return await call_next(make(exchange.request))

    async with (
        Upstream(script(streamed=streamed)) as upstream,
        Cached(caching(upstream.base_url, chain=["cache", "around"]), plugins=[Processing(around)]) as proxy,
    ):
        seen = [await proxy.ask(question(stream=streamed)) for _ in range(2)]
        assert not proxy.gateway.background

    assert [status(it) for it in seen] == ["miss", "hit"]
    assert [it.end for it in proxy.outcomes] == [End.COMPLETED] * 2
    assert [bill.cost for bill in proxy.bills.values()] == [Money(COST), Money(0)]


async def test_a_processor_below_sends_for_another_model() -> None:
    """The key is that of what was asked; both names lead to the answer when it is to be forgotten."""

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        exchange.request = exchange.request.with_model("other")
        return await call_next(exchange)

    async with (
        Upstream(PLAIN) as upstream,
        Cached(caching(upstream.base_url, chain=["cache", "around"]), plugins=[Processing(around)]) as proxy,
    ):
        found = []
        for model in ("gpt-4o-mini", "other"):
            await proxy.ask(question())
            found.append(json.loads((await proxy.purge(f"model={model}")).body))

    assert found == [{"deleted": 1}] * 2
    assert json.loads(upstream.requests[0].body)["model"] == "other"


# -- how long, and how much --------------------------------------------------------------------------------------------


async def test_an_answer_is_given_again_for_its_time_and_no_longer() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url, ttl_s=60)) as proxy:
        seen = []
        for passes_s in (0, 59.9, 0.2, 0):
            proxy.wall.now += passes_s
            seen.append(await proxy.ask(question()))

    assert [status(it) for it in seen] == ["miss", "hit", "miss", "hit"]
    assert [it.header("age") for it in seen] == [None, "59", None, "0"]


async def test_a_clock_that_goes_back_makes_nothing_older_or_younger_than_now() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url, ttl_s=60)) as proxy:
        await proxy.ask(question())
        proxy.wall.now -= 1000
        seen = await proxy.ask(question())

    assert (status(seen), seen.header("age")) == ("hit", "0")


async def test_the_short_form_of_the_table_is_its_time() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Cached(caching(upstream.base_url, config_value=60)) as proxy,
    ):
        await proxy.ask(question())
        proxy.wall.now += 61
        assert status(await proxy.ask(question())) == "miss"


async def test_what_was_used_least_recently_goes_first() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url, max_bytes=1600)) as proxy:
        seen = [status(await proxy.ask(question(seed=seed))) for seed in (1, 2, 3, 1, 4, 1, 3, 2)]

    # Three answers of some 490 bytes fit. 4 pushes out 2, since 1 was used again.
    assert seen == ["miss", "miss", "miss", "hit", "miss", "hit", "hit", "miss"]


@WAYS
async def test_an_answer_that_is_too_long_comes_whole_and_is_not_kept(streamed: bool) -> None:
    text = "x" * 3000
    long = stream(*[chat_chunk(text)] * 4, chat_chunk(None, finish="stop")) if streamed else reply(completion(text * 4))
    async with Upstream(long) as upstream, Cached(caching(upstream.base_url, max_entry_bytes=4096)) as proxy:
        seen = [await proxy.ask(question(stream=streamed)) for _ in range(2)]

    assert [status(it) for it in seen] == ["miss", "miss"]
    assert [reply_in(it).text for it in seen] == [text * 4] * 2
    assert [it.end for it in proxy.outcomes] == [End.COMPLETED] * 2
    assert len(upstream.requests) == 2
