"""Rows 38, 40 and 46: broken files, SIGTERM, and what is left behind, of a proxy whose providers fail."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.answers import chat_chunk, completion, reply, sse
from tests.exact import Seen
from tests.exact import post as post_json
from tests.growth import instances
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.edging import HELLO, ask, many, post
from tests.llmproxy_server.reloading import Reloadable, toml
from tests.llmproxy_server.transporting import until
from tests.mixture import Mixture, as_asked
from tests.proxy import SECRET, Proxy
from tests.resilience.flocks import fails, says
from tests.resilience.goals.kit import Figure, became, guarded, of
from tests.test_reload_under_load import resident_mb
from tests.upstream import Call, Chunk, End, Head, Upstream, Wait, refusing_url
from tests.workers import WAIT_S, working

NEVER_OPEN = {"min_calls": 1_000_000}

# -- 38: broken files ------------------------------------------------------------------------------------------------

BAD: dict[str, str | bytes] = {
    "empty": "",
    "binary": bytes(range(256)),
    "half": '"llm" = {"a" = {"provider" =',
    "a wrong type": 'llm = "a"\n',
    "a member that is not there": '[llm.all]\nprovider = "fallback"\nmembers = ["a", "b"]\n'
    '[[route]]\npath_prefix = "/v1"\ntarget_llm = "all"\n',
    "a group in itself": '[llm.all]\nprovider = "fallback"\nmembers = ["all"]\n'
    '[[route]]\npath_prefix = "/v1"\ntarget_llm = "all"\n',
    "retries that cannot be": '[llm.a]\nprovider = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
    'retries = { max_retries = -1, jitter = 7 }\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\n',
}


async def test_broken_files_disturb_no_call_and_close_no_breaker(tmp_path: Path, record_property: Figure) -> None:
    """Row 38: seven under load; each is refused with its reason, no call is disturbed, an open breaker stays open."""
    ended = False
    served, disturbed = 0, []
    async with (
        Upstream(fails(503)) as a,
        Upstream(says("of b")) as b,
        Reloadable(tmp_path, guarded(a, b, llm={"breaker": {"open_s": 60.0}})) as proxy,
        many(proxy.port, 4) as clients,
        asyncio.TaskGroup() as group,
    ):

        async def calling(number: int) -> None:
            nonlocal served
            while not ended:
                got = await ask(clients[number], post(HELLO))
                served += 1
                if (seen := became(got.status, got.body, got.complete)).text != "of b":
                    disturbed.append(seen)

        for number in range(len(clients)):
            group.create_task(calling(number))
        await until(lambda: served > 60)  # so that the breaker of a is open
        asked = len(a.requests)
        named = 0
        for text in BAD.values():
            proxy.write_text(text)
            done = await proxy.reload()
            named += not done.ok and all(problem.message for problem in done.problems) and bool(done.problems)
            before = served
            await until(lambda before=before: served > before + 10)  # type: ignore[misc]
        ended = True

    record_property("row 38", f"{len(BAD)} broken files, {named} named, {served} calls, disturbed {len(disturbed)}")
    assert named == len(BAD)
    assert disturbed == []
    assert len(a.requests) == asked


# -- 40: SIGTERM -----------------------------------------------------------------------------------------------------

IN_FLIGHT = 20
ONE = sse(chat_chunk("one"), done=False)
REST = sse(chat_chunk("two"), chat_chunk(None, finish="stop"))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
async def test_at_sigterm_all_that_is_in_flight_ends_whole(tmp_path: Path, record_property: Figure) -> None:
    """
    Row 40: a third are streams, a third plain, a third fail only then, and go to the other member while we drain.

    New connections are refused meanwhile, and the process ends with 0.
    """
    go_on = asyncio.Event()

    async def held(call: Call) -> None:
        match json.loads(call.received.body)["model"]:
            case "stream":
                await call.play(Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End())
            case "plain":
                await call.play(Wait(go_on), *reply(completion("onetwo")))
            case _:
                await call.play(Wait(go_on), *fails(503))

    async with Upstream(held, timeout_s=WAIT_S) as a, Upstream(says("onetwo")) as b:
        # No signs of life: on a busy machine it may be silent for long until the port is closed.
        mapping = guarded(a, b) | {"server": {"port": 0, "keepalive_s": 0}}
        async with working(tmp_path, toml(mapping), variables={"KEY": SECRET}) as proxy:
            async with asyncio.TaskGroup() as group:
                asking = [group.create_task(_called(proxy.url, number)) for number in range(IN_FLIGHT)]
                await a.received(IN_FLIGHT)
                proxy.send(signal.SIGTERM)
                sent_s = time.monotonic()
                await _until_refused(proxy.port)
                go_on.set()
            code = await asyncio.wait_for(proxy.process.wait(), WAIT_S)
            took_s = time.monotonic() - sent_s

    found = [of(task.result()) for task in asking]
    whole = sum(it.kind == "right" and it.text == "onetwo" for it in found)
    record_property("row 40", f"whole {whole} of {IN_FLIGHT}, {len(b.requests)} by the other member, {took_s:.2f} s")
    assert (whole, code) == (IN_FLIGHT, 0)
    assert len(b.requests) == IN_FLIGHT // 3


async def _called(url: str, number: int) -> Seen:
    model = ("stream", "plain", "fails")[number % 3]
    return await post_json(f"{url}/v1/chat/completions", question(model=model, stream=model == "stream"))


async def _until_refused(port: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:  # refused; or reset, where it stood in the queue of the socket that closed
                return
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


# -- 46: leaks -------------------------------------------------------------------------------------------------------

DESCRIPTORS = Path("/proc/self/fd")


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="it counts in /proc")
@pytest.mark.parametrize(
    "calls", [600, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])], ids=["short", "whole"]
)
async def test_however_calls_of_a_group_end_they_leave_nothing_behind(calls: int, record_property: Figure) -> None:
    """Row 46: descriptors, tasks, threads and objects are as before, after calls that end in every way."""
    with refusing_url() as refusing:
        async with Upstream(as_asked) as a, Upstream(as_asked) as b, Proxy(_leaking(a, b, refusing)) as proxy:
            mixture = Mixture(proxy.port, ["/v1"], "/nowhere/v1", random.Random(calls))
            await mixture.some(calls // 3)  # what is made once is made
            await _at_rest(proxy, a, b)
            before, kinds, before_mb = _held(), instances(), resident_mb()

            while mixture.calls < calls:
                await mixture.some(100)
                await _at_rest(proxy, a, b)

            async with asyncio.timeout(10):
                while any(now > then for now, then in zip(_held(), before, strict=True)):  # noqa: ASYNC110 - the kernel has no event
                    await asyncio.sleep(0)
            after, found, grown_mb = _held(), instances(), resident_mb() - before_mb
            in_flight = proxy.server.admission.in_flight

    figures = f"descriptors, tasks, threads {before} -> {after}; memory +{grown_mb:.1f} MB"
    record_property("row 46", f"{mixture.calls} calls in {len(mixture.seen)} ways: {figures}")
    assert mixture.unseen() == {}
    assert in_flight == 0
    assert grown(kinds, found) == {}


def _leaking(a: Upstream, b: Upstream, refusing: str) -> dict[str, Any]:
    """The group, and another one whose members nobody reaches."""
    pool = {"idle_s": 0.2}
    mapping = guarded(a, b, llm={"breaker": NEVER_OPEN, "pool": pool})
    for name in ("c", "d"):
        mapping["llm"][name] = {**mapping["llm"]["a"], "base_url": f"{refusing}/v1"}
    mapping["llm"]["nowhere"] = {**mapping["llm"]["all"], "members": ["c", "d"]}
    for route in mapping["route"]:
        route["operations"] = ["chat"]
    mapping["route"].append({**mapping["route"][0], "path_prefix": "/nowhere/v1", "target_llm": "nowhere"})
    return mapping


async def _at_rest(proxy: Proxy, *upstreams: Upstream) -> None:
    """Wait until all calls are over, and forget what the test remembers of them."""
    async with asyncio.timeout(20):
        await proxy.outcome(len(proxy.exchanges))
        while proxy.server.admission.in_flight or any(it.connections_open for it in upstreams):  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0)
    proxy.exchanges.clear()
    proxy.outcomes.clear()
    for upstream in upstreams:
        upstream.requests.clear()


def _held() -> tuple[int, int, int]:
    """Descriptors, tasks and threads."""
    return len(list(DESCRIPTORS.iterdir())), len(asyncio.all_tasks()), threading.active_count()


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    """The classes of which there are more than chance leaves."""
    return {kind: (before[kind], count) for kind, count in after.items() if count > before[kind] + 20}
