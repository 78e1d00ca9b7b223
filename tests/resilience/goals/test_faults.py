"""Rows 22 to 26 and 29: providers that cut, reset, limit, fail for all, refuse and fall silent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.answers import chat_chunk, error, sse, stream
from tests.exact import Seen, post
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy
from tests.resilience.flocks import ask, fails, says
from tests.resilience.goals.kit import Figure, guarded, of, quantiles_ms, tries
from tests.resilience.test_providers import providers
from tests.speaking import SPEAKERS, Speaker
from tests.upstream import Call, Chunk, Cut, Head, Raw, Reset, Stall, Step, Upstream, silent_url
from tests.upstream import End as Over

ROLE = {**chat_chunk(None), "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}


async def at_once(proxy: Proxy, calls: int, *headers: tuple[str, str], **members: object) -> list[Seen]:
    """So many calls that come together."""
    return await asyncio.wait_for(asyncio.gather(*(ask(proxy, *headers, **members) for _ in range(calls))), 60)


# -- 22: a provider that dies in a stream ----------------------------------------------------------------------------

STREAMS = 50
WORDS = [f"word{number} " for number in range(20)]
DYING: dict[str, list[Step]] = {
    "close": [Cut()],
    "RST": [Reset()],
    "no end mark": [Over()],
    "error event": [Chunk(sse(error("It fell over"), done=False)), Over()],
    "error event and end mark": [Chunk(sse(error("It fell over"))), Over()],
    "no chunk": [Raw(b"no chunk\r\n"), Cut()],
}


@pytest.mark.parametrize("how", DYING)
async def test_a_stream_that_dies_is_told_whole_and_not_begun_anew(how: str, record_property: Figure) -> None:
    """Row 22: fifty at once, each with an error event, no end mark, all its tokens, and nothing of another answer."""
    said: list[Step] = [Head(), *(Chunk(sse(chat_chunk(word), done=False)) for word in WORDS)]
    async with Upstream([*said, *DYING[how]]) as a, Upstream(says("of b")) as b, Proxy(guarded(a, b)) as proxy:
        found = list(map(of, await at_once(proxy, STREAMS, stream=True)))

        told = [it for it in found if it.kind == "told" and it.text == "".join(WORDS)]
        record_property("row 22", f"{how}: told {len(told)} of {STREAMS}")
        assert found == told
        assert (len(a.requests), len(b.requests)) == (STREAMS, 0)


@pytest.mark.parametrize("speaker", [it for it in SPEAKERS if not it.array], ids=str)  # an array has no events
async def test_a_stream_that_dies_is_told_in_the_protocol_of_its_client(speaker: Speaker) -> None:
    """Row 22: an error of its own form behind all that was said, no end mark, no last chunk."""
    said: list[Step] = [Head(), *(Chunk(sse(chat_chunk(word), done=False)) for word in WORDS), Cut()]
    async with Upstream(said) as a, Upstream(says("of b")) as b:
        mapping = guarded(a, b, route={"path_prefix": "/"})
        async with Proxy(mapping, plugins=[llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral]) as proxy:
            path, body = speaker.path(stream=True, model="m"), speaker.body(stream=True, model="m")
            seen = await post(proxy.url + path, body, speaker.headers())

    assert check_stream(speaker.name, seen.body, failed=True, strict=False) == []
    assert all(word.encode() in seen.body for word in WORDS)
    assert (seen.status, seen.whole) == (200, False)
    assert (len(a.requests), b.requests) == (1, [])


# -- 23: a provider that breaks before its first byte ----------------------------------------------------------------

BREAKING: dict[str, list[Step]] = {
    "reset": [Reset()],
    "closed": [Cut()],
    "half a head": [Raw(b"HTTP/1.1 200 OK\r\nContent-"), Cut()],
    "a head and no body": [Head(), Cut()],
    "a head and a role": [Head(), Chunk(sse(ROLE, done=False)), Cut()],
}


@pytest.mark.parametrize("how", BREAKING)
async def test_what_breaks_before_its_first_byte_is_saved_by_the_other_member(
    how: str, record_property: Figure
) -> None:
    """Row 23: of a hundred calls, each third of which is broken, a hundred are answered."""
    calls = 100
    good = stream(chat_chunk("hello"), chat_chunk(None, finish="stop"))
    count = 0

    async def each_third(call: Call) -> None:
        nonlocal count
        count += 1
        await call.play(*(BREAKING[how] if count % 3 == 0 else good))

    async with Upstream(each_third) as a, Upstream(good) as b, Proxy(guarded(a, b)) as proxy:
        found = [of(await ask(proxy, stream=True)) for _ in range(calls)]

        saved = sum(it.kind == "right" and it.text == "hello" for it in found)
        broken, others = count // 3, len(b.requests)
        record_property("row 23", f"{how}: saved {saved} of {calls}; {broken} broke, {others} went to the other member")
        assert saved == calls
        assert len(a.requests) + others == calls + broken
        # A kept connection that closes without a byte is opened once more, as often as the retry budget allows it.
        if how in ("reset", "closed"):
            assert broken - (0.2 * calls + 3) <= others < broken
        else:
            assert others == broken


@pytest.mark.parametrize("how", BREAKING)
async def test_what_breaks_everywhere_is_told_as_a_bad_gateway(how: str) -> None:
    """Row 23: else 502, and SDKs are told not to come back at once."""
    async with (
        Upstream(BREAKING[how]) as a,
        Upstream(BREAKING[how]) as b,
        Proxy(guarded(a, b, retries=tries(3))) as proxy,
    ):
        seen = await ask(proxy, stream=True)

        assert (seen.status, of(seen).kind, seen.header("x-should-retry")) == (502, "told", "false")
        assert len(a.requests) + len(b.requests) == 4


# -- 24: limits ------------------------------------------------------------------------------------------------------


async def test_nobody_is_called_before_the_time_that_it_told(record_property: Figure) -> None:
    """
    Row 24: both members limit, one for 300 ms and one for 500 ms; none of fifty other callers is let through early.

    Who was told waits; the others are told how long, at once, and here come again without a pause.
    """
    arrived: list[tuple[str, float]] = []
    free_s: dict[str, float] = {}

    def limited(name: str, for_ms: int) -> Callable[[Call], object]:
        async def answering(call: Call) -> None:
            now = time.monotonic()
            arrived.append((name, now))
            if name not in free_s:
                free_s[name] = now + for_ms / 1000
                await call.play(*fails(429, ("retry-after-ms", str(for_ms))))
                return
            await call.play(*says("hello"))

        return answering

    async with (
        Upstream(limited("a", 300)) as a,  # type: ignore[arg-type]
        Upstream(limited("b", 500)) as b,  # type: ignore[arg-type]
        Proxy(guarded(a, b)) as proxy,
        asyncio.TaskGroup() as group,
    ):
        first = group.create_task(ask(proxy))
        await until(lambda: sum(it.error is not None for one in proxy.exchanges for it in one.attempts) == 2)
        others = await asyncio.gather(*(_until_served(proxy) for _ in range(50)))
        statuses = {(await first).status, *(seen.status for seen in others)}

    early = [name for name, at_s in arrived[2:] if at_s < free_s[name]]
    record_property("row 24", f"{len(arrived)} calls after two limits, early {len(early)}")
    assert statuses == {200}
    assert early == []


async def _until_served(proxy: Proxy) -> Seen:
    """Ask, and ask again as long as the answer is to come back."""
    async with asyncio.timeout(20):
        while (seen := await ask(proxy)).status == 429:
            assert seen.header("retry-after-ms") is not None
    return seen


async def test_how_long_all_members_want_to_be_left_alone_is_passed_on() -> None:
    """Row 24: the caller is told the shorter time of the two, at once, and nobody is asked again before it is over."""
    async with (
        Upstream(fails(429, ("retry-after", "90"))) as a,
        Upstream(fails(429, ("retry-after", "60"))) as b,
        Proxy(guarded(a, b)) as proxy,
    ):
        found = [await ask(proxy), *await at_once(proxy, 20)]

        assert {seen.status for seen in found} == {429}
        assert (len(a.requests), len(b.requests)) == (1, 1)
        waits = [int(seen.header("retry-after") or "0") for seen in found]
        assert min(waits) >= 50, waits


# -- 25: an outage ---------------------------------------------------------------------------------------------------

CALLS = 200
EAGER = tries(20, initial_backoff_s=0.001)


async def test_in_an_outage_that_strikes_all_calls_at_once_no_upstream_sees_a_storm(record_property: Figure) -> None:
    """Row 25: each member sees at most 1.2 tries a request, and three, though each might be tried 21 times."""
    gate = asyncio.Event()

    async def failing(call: Call) -> None:
        if len(a.requests) >= CALLS:
            gate.set()
        await call.hold(gate, "all the calls")
        await call.play(*fails(503))

    async with (
        Upstream(failing) as a,
        Upstream(fails(503)) as b,
        Proxy(guarded(a, b, llm={"breaker": {"min_calls": 9999}}, retries=EAGER)) as proxy,
    ):
        found = await at_once(proxy, CALLS)
        seen = (len(a.requests), len(b.requests))

    record_property("row 25", f"{CALLS} at once: tries a request {seen[0] / CALLS:.2f} and {seen[1] / CALLS:.2f}")
    assert {of(it).kind for it in found} == {"told"}
    assert max(seen) <= CALLS * 1.2 + 3


async def test_in_an_outage_calls_that_keep_coming_are_not_multiplied(record_property: Figure) -> None:
    """Row 25: 200 calls, ten at a time: each member sees at most 1.2 times the calls that reach it, and three."""
    async with (
        Upstream(fails(503)) as a,
        Upstream(fails(503)) as b,
        Proxy(guarded(a, b, llm={"breaker": {}}, retries={**EAGER, "max_backoff_s": 0.05})) as proxy,
    ):
        began_s = time.monotonic()
        found = [seen for _ in range(CALLS // 10) for seen in await at_once(proxy, 10)]
        windows = 1 + (time.monotonic() - began_s) // 10
        tried = Counter(attempt.llm for exchange in proxy.exchanges for attempt in exchange.attempts)
        reached = Counter(llm for exchange in proxy.exchanges for llm in {it.llm for it in exchange.attempts})
        sent = {"a": len(a.requests), "b": len(b.requests)}

    each = ", ".join(f"{llm}: {tried[llm]} tries of {reached[llm]} calls" for llm in sorted(tried))
    record_property("row 25", f"{CALLS} in turn: {each}; {tried.total() / CALLS:.2f} tries a request over both")
    assert {of(it).kind for it in found} == {"told"}
    assert tried == sent
    assert [llm for llm in tried if tried[llm] > 1.2 * reached[llm] + 3 * windows] == []


# -- 26: what the caller did wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_what_the_caller_did_wrong_is_asked_once_and_held_against_nobody(
    status: int, record_property: Figure
) -> None:
    """Row 26: tries a request 1.00, and the breaker stays shut."""
    calls = 60
    async with Upstream(fails(status)) as a, Upstream(says("of b")) as b, Proxy(guarded(a, b)) as proxy:
        found = [await ask(proxy) for _ in range(calls)]
        asked = len(a.requests) + len(b.requests)
        (key,) = (await providers(proxy.url))["a"]["keys"]
        a.script = says("of a")
        after = of(await ask(proxy))

    record_property("row 26", f"{status}: tries a request {asked / calls:.2f}, breaker {key['breaker']['state']}")
    assert {seen.status for seen in found} == {status}
    assert (asked, b.requests) == (calls, [])
    assert (key["breaker"]["state"], key["breaker"]["opened"], after.text) == ("closed", 0, "of a")


# -- 29: clocks ------------------------------------------------------------------------------------------------------

SET_S = 0.2
SILENT: dict[str, list[Step]] = {
    "first_byte": [Stall()],
    "first_token": [Head(), Chunk(sse(ROLE, done=False)), Stall()],
    "idle": [Head(), Chunk(sse(chat_chunk("one"), done=False)), Stall()],
    "total": [Head(), Chunk(sse(chat_chunk("one"), done=False)), Stall()],
}


@pytest.mark.parametrize("clock", ["connect", "first_byte", "first_token"])
async def test_who_is_silent_for_too_long_is_given_up_for_the_other_member(clock: str, record_property: Figure) -> None:
    """Row 29: at the set time, plus a second at most, the other one is asked; its answer is whole."""
    good = stream(chat_chunk("hello"), chat_chunk(None, finish="stop"))
    with silent_url() as url:
        async with Upstream(SILENT.get(clock, [])) as a, Upstream(good) as b:
            mapping = guarded(a, b)
            mapping["llm"]["a"]["timeouts"] = {f"{clock}_s": SET_S}
            if clock == "connect":
                mapping["llm"]["a"]["base_url"] = f"{url}/v1"
            async with Proxy(mapping) as proxy:
                began_s = time.monotonic()
                found = of(await ask(proxy, stream=True))
                took_s = time.monotonic() - began_s
                (failed, _) = proxy.exchanges[0].attempts

    record_property("row 29", f"{clock}, hidden: {quantiles_ms([took_s])} where {SET_S * 1000:.0f} ms are set")
    assert (found.kind, found.text) == ("right", "hello")
    assert failed.error is not None
    assert failed.error.code in (f"upstream_timeout_{clock}", "upstream_connect")
    assert SET_S <= took_s <= SET_S + 1


@pytest.mark.parametrize("clock", ["first_byte", "first_token"])
async def test_where_all_are_silent_the_caller_is_told_so_in_time(clock: str, record_property: Figure) -> None:
    """Row 29: 504 at the set time of both, plus a second at most."""
    llm = {"timeouts": {f"{clock}_s": SET_S}}
    async with (
        Upstream(SILENT[clock]) as a,
        Upstream(SILENT[clock]) as b,
        Proxy(guarded(a, b, llm=llm, retries=tries(1))) as proxy,
    ):
        began_s = time.monotonic()
        seen = await ask(proxy, stream=True)
        took_s = time.monotonic() - began_s

    record_property("row 29", f"{clock}, told: {quantiles_ms([took_s])} where twice {SET_S * 1000:.0f} ms are set")
    assert (seen.status, of(seen).code) == (504, f"upstream_timeout_{clock}")
    assert 2 * SET_S <= took_s <= 2 * SET_S + 1
    assert (len(a.requests), len(b.requests)) == (1, 1)


@pytest.mark.parametrize("clock", ["idle", "total"])
async def test_a_stream_that_falls_silent_ends_with_an_error_event_in_time(clock: str, record_property: Figure) -> None:
    """Row 29: at the set time, plus a second at most; what was said stays, and no other member is asked."""
    llm = {"timeouts": {f"{clock}_s": SET_S}}
    async with Upstream(SILENT[clock]) as a, Upstream(says("of b")) as b, Proxy(guarded(a, b, llm=llm)) as proxy:
        began_s = time.monotonic()
        found = of(await ask(proxy, stream=True))
        took_s = time.monotonic() - began_s

    record_property("row 29", f"{clock}: {quantiles_ms([took_s])} where {SET_S * 1000:.0f} ms are set")
    assert (found.kind, found.text, found.code) == ("told", "one", f"upstream_timeout_{clock}")
    assert SET_S <= took_s <= SET_S + 1
    assert b.requests == []
