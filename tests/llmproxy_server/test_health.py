"""Health: what is said of the process and of its LLMs."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from llmproxy_core import End, Exchange, Operation, Request, Tasks
from llmproxy_core.attempt import Attempt
from llmproxy_core.config import Config, structure
from llmproxy_core.endpoint import EndpointReply, EndpointRequest
from llmproxy_core.errors import StoreUnavailable, UpstreamAuthError, UpstreamCut, UpstreamError, UpstreamTimeout
from llmproxy_core.headers import Headers
from llmproxy_core.plugins import Registry
from llmproxy_server.health import Health
from llmproxy_server.health_merge import merge
from llmproxy_server.health_reason import Growing
from llmproxy_server.life import Life
from tests.llmproxy_server.edging import STREAM, ask, post, request
from tests.proxy import STANDARD_PLUGINS, Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Chunk, Cut, Head, Step, Upstream, chat_chunk, completion, error, reply, sse


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def health_of(clock: Clock, life: Life, **more_llms: dict[str, Any]) -> Health:
    mapping = openai_at("http://127.0.0.1:9/v1")
    mapping["llm"]["off"] = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "enabled": False}
    mapping["llm"] |= more_llms
    config, _ = structure(mapping, Registry.of(*STANDARD_PLUGINS), {})
    return Health(config, life, version="1.2", clock=clock, in_flight=lambda: 7)


ASKED = EndpointRequest("GET", "/health", "", Headers())


async def test_everything_is_told() -> None:
    clock, life = Clock(), Life()
    health = health_of(clock, life)
    life.ready = True
    health.learn([Attempt("openai", "m", 0.0, error=UpstreamCut("gone"))])
    clock.now += 5

    said = json.loads((await health.health(ASKED)).body)

    assert said == {
        "status": "degraded",
        "reasons": [{"part": "llm.openai", "code": "upstream_cut", "message": "its last call failed", "age_s": 5.0}],
        "version": "1.2",
        "uptime_s": 5.0,
        "draining": False,
        "in_flight": 7,
        "llms": {
            "openai": {
                "provider": "openai",
                "enabled": True,
                "state": "failing",
                "tried_age_s": 5.0,
                "last_error": {"code": "upstream_cut", "age_s": 5.0},
            },
            "off": {"provider": "openai", "enabled": False, "state": "unknown"},
        },
        "stores": {},
    }


async def test_a_group_is_as_its_member_that_is_best_off() -> None:
    clock, other = Clock(), {"provider": "openai", "base_url": "http://127.0.0.1:9/v1"}
    inner = {"provider": "fallback", "members": ["openai", "off"]}
    outer = {"provider": "fallback", "members": ["other", "inner"]}
    health = health_of(clock, Life(), other=other, inner=inner, outer=outer)
    untried = (await told(health))["llms"]["outer"]
    health.learn([Attempt("openai", "m", 0.0, error=UpstreamCut("gone"))])
    clock.now += 1
    failing = (await told(health))["llms"]["inner"]
    health.learn([Attempt("other", "m", 0.0, status=200)])
    clock.now += 2
    llms = (await told(health))["llms"]

    assert untried == {"provider": "fallback", "enabled": True, "state": "unknown"}
    assert (failing["state"], failing["tried_age_s"], failing["last_error"]["code"]) == ("failing", 1.0, "upstream_cut")
    assert llms["outer"] == {"provider": "fallback", "enabled": True, "state": "ok", "tried_age_s": 2.0}
    assert (llms["inner"]["state"], llms["inner"]["tried_age_s"]) == ("failing", 3.0)


async def test_the_word_is_that_of_the_process_first() -> None:
    life = Life()
    health = health_of(Clock(), life)
    words = [(await told(health))["status"]]
    life.ready = True
    words.append((await told(health))["status"])
    health.complain("reload", "reload_failed", "2 problems")
    words.append((await told(health))["status"])
    life.draining = True
    words.append((await told(health))["status"])

    assert words == ["starting", "ok", "degraded", "draining"]
    assert [it["part"] for it in (await told(health))["reasons"]] == ["reload"]


async def test_degraded_is_still_ready() -> None:
    life = Life()
    health = health_of(Clock(), life)
    life.ready = True
    health.complain("reload", "reload_failed", "2 problems")

    assert (await health.health(ASKED)).status == 200
    assert (await health.readyz(ASKED)).status == 200


async def test_what_is_complained_of_is_a_reason_until_it_is_well_again() -> None:
    clock, life = Clock(), Life()
    health = health_of(clock, life)
    life.ready = True
    health.complain("reload", "reload_failed", "1 problem")
    clock.now += 2
    health.complain("reload", "reload_failed", "3 problems")
    clock.now += 4
    reasons = (await told(health))["reasons"]

    health.clear("reload")

    assert reasons == [{"part": "reload", "code": "reload_failed", "message": "3 problems", "age_s": 4.0}]
    assert (await told(health))["status"] == "ok"


async def test_what_grows_is_a_reason_for_a_minute() -> None:
    clock, life = Clock(), Life()
    health = health_of(clock, life)
    life.ready = True
    count = 5
    health.add(Growing("traces", "spans_dropped", "spans were dropped", lambda: count, clock))
    before = (await told(health))["reasons"]
    count = 7
    grown = (await told(health))["reasons"]
    clock.now += 59
    later = (await told(health))["reasons"]
    clock.now += 2

    assert before == []
    assert grown == [{"part": "traces", "code": "spans_dropped", "message": "7 spans were dropped", "age_s": 0.0}]
    assert later[0]["age_s"] == 59
    assert (await told(health))["reasons"] == []


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (UpstreamError("said", code="sk-live-0123", upstream_status=500), "upstream_error", 500),
        (UpstreamTimeout("late", code="upstream_timeout_idle"), "upstream_timeout_idle", None),
        (UpstreamTimeout("late"), "upstream_timeout_first_byte", None),
        (UpstreamAuthError("no", code="its own word", upstream_status=401), "upstream_auth", 401),
    ],
)
async def test_no_word_of_an_upstream_is_told(error: UpstreamError, code: str, status: int | None) -> None:
    health = health_of(Clock(), Life())

    health.learn([Attempt("openai", "m", 0.0, error=error)])

    reply = await health.health(ASKED)
    (reason,) = json.loads(reply.body)["reasons"]
    assert reason["code"] == code
    assert json.loads(reply.body)["llms"]["openai"]["last_error"].get("status") == status
    assert b"sk-live" not in reply.body
    assert b"its own word" not in reply.body


# -- another configuration -------------------------------------------------------------------------------------------


def config_of(**llms: str) -> Config:
    """LLMs by name, each at a URL."""
    tables = {name: {"provider": "openai", "base_url": url} for name, url in llms.items()}
    route = {"path_prefix": "/v1", "target_llm": next(iter(llms))}
    config, _ = structure({"llm": tables, "route": [route]}, Registry.of(*STANDARD_PLUGINS), {})
    return config


async def test_what_is_known_of_an_llm_stays_while_it_is_configured_so() -> None:
    failed = UpstreamCut("gone")
    before = config_of(same="http://a.test/v1", other="http://b.test/v1", gone="http://c.test/v1")
    health = Health(before, Life(), version="1", clock=Clock(), in_flight=int)
    health.learn([Attempt(name, "m", 0.0, error=failed) for name in before.llms])

    health.configure(config_of(same="http://a.test/v1", other="http://d.test/v1"), {})

    llms = (await told(health))["llms"]
    assert {name: llm["state"] for name, llm in llms.items()} == {"same": "failing", "other": "unknown"}


async def test_a_call_of_an_earlier_configuration_says_nothing_of_the_llm_that_has_its_name_now() -> None:
    health = Health(config_of(a="http://a.test/v1"), Life(), version="1", clock=Clock(), in_flight=int)
    call = Exchange(Request(operation=Operation.CHAT), id="7", route="/", tasks=Tasks(), clock=Clock())
    llms = health.llms
    call.on_billed(lambda bill: health.learn_from(call, llms))
    call.attempts.append(Attempt("a", "m", started_s=1.0, error=UpstreamCut("gone")))
    health.configure(config_of(a="http://b.test/v1"), {})

    call.finish(End.FAILED)

    assert (await told(health))["llms"]["a"]["state"] == "unknown"


async def test_readiness_follows_the_life_of_the_process() -> None:
    life = Life()
    health = health_of(Clock(), life)
    statuses = [(await health.readyz(ASKED)).status]
    life.ready = True
    statuses.append((await health.readyz(ASKED)).status)
    life.draining = True
    statuses.append((await health.readyz(ASKED)).status)

    assert statuses == [503, 200, 503]
    assert (await health.livez(ASKED)).status == 200
    assert (await health.health(ASKED)).status == 200


@pytest.mark.parametrize(
    ("attempt", "state"),
    [
        (Attempt("openai", "m", 0.0, status=200), "ok"),
        (Attempt("openai", "m", 0.0, status=422, error=UpstreamError("no", status=422, upstream_status=422)), "ok"),
        (
            Attempt("openai", "m", 0.0, status=429, error=UpstreamError("no", status=429, upstream_status=429)),
            "failing",
        ),
        (Attempt("openai", "m", 0.0, status=500, error=UpstreamError("no", upstream_status=500)), "failing"),
        (Attempt("openai", "m", 0.0, status=401, error=UpstreamAuthError("no", upstream_status=401)), "failing"),
        (Attempt("openai", "m", 0.0), "unknown"),
        (Attempt("another", "m", 0.0, status=200), "unknown"),
    ],
    ids=["answered", "callers-fault", "rate-limited", "broken", "our-key", "under-way", "not-ours"],
)
async def test_an_llm_is_judged_by_what_was_its_own_fault(attempt: Attempt, state: str) -> None:
    health = health_of(Clock(), Life())

    health.learn([attempt])

    assert json.loads((await health.health(ASKED)).body)["llms"]["openai"]["state"] == state


async def test_health_is_fed_by_real_calls() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        upstream.then(reply(error("broken"), 500))
        states = []
        for _ in range(2):
            await ask(client, post())
            states.append((await ask(client, request("GET", "/health"))).json["llms"]["openai"])

    assert [state["state"] for state in states] == ["failing", "ok"]
    assert states[1]["last_error"]["age_s"] >= 0


async def test_an_llm_whose_stream_breaks_is_failing() -> None:
    script: list[Step] = [Head(), Chunk(sse(chat_chunk("one"), done=False)), Cut()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
        connected(proxy.port) as other,
    ):
        assert not (await ask(client, post(STREAM))).complete

        llm = (await ask(other, request("GET", "/health"))).json["llms"]["openai"]
        assert (llm["state"], llm["last_error"]["code"]) == ("failing", "upstream_cut")


async def test_it_learns_from_children_too_and_from_what_outlives_the_call() -> None:
    """At the bill: what was detached may make its attempts when the call is over. What was tried last counts."""
    health = health_of(Clock(), Life())
    tasks = Tasks()
    request = Request(operation=Operation.CHAT)
    call = Exchange(request, id="7", route="/", tasks=tasks, clock=Clock())
    llms = health.llms
    call.on_billed(lambda bill: health.learn_from(call, llms))
    child, shared = call.child(request), call.detach(request)
    child.attempts.append(Attempt("openai", "m", started_s=1.0, status=200))
    call.finish(End.COMPLETED)
    before = await _state(health)
    shared.attempts.append(Attempt("openai", "m", started_s=2.0, error=UpstreamCut("gone")))

    shared.finish(End.FAILED)

    assert before == "unknown"
    assert await _state(health) == "failing"


async def _state(health: Health) -> object:
    return (await told(health))["llms"]["openai"]["state"]


# -- stores ----------------------------------------------------------------------------------------------------------


class Space:
    """A KeyValue that can only be asked, and answers as the test says."""

    def __init__(self, asked: Callable[[], Awaitable[bytes | None]]) -> None:
        self._asked = asked

    async def get(self, key: str) -> bytes | None:
        return await self._asked()


class Stored:
    """A Store of one KeyValue."""

    def __init__(self, asked: Callable[[], Awaitable[bytes | None]]) -> None:
        self._asked = asked

    def key_value(self, space: str, *, max_bytes: int) -> Any:
        return Space(self._asked)

    def counter(self, space: str) -> Any:
        raise AssertionError("not asked for")

    def ledger(self, space: str) -> Any:
        raise AssertionError("not asked for")

    async def aclose(self) -> None:
        """Nothing is open."""


def asking(store: Stored, clock: Clock, tasks: Tasks) -> Health:
    mapping = {**openai_at("http://127.0.0.1:9/v1"), "store": {"s": {"type": "memory"}}}
    config, _ = structure(mapping, Registry.of(*STANDARD_PLUGINS), {})
    life = Life()
    life.ready = True
    return Health(config, life, version="1", clock=clock, in_flight=int, stores={"s": store}, tasks=tasks)


async def test_a_store_that_answers_is_ok_and_asked_once_a_second() -> None:
    clock, tasks, asked = Clock(), Tasks(), 0

    async def get() -> bytes | None:
        nonlocal asked
        asked += 1
        return None

    health = asking(Stored(get), clock, tasks)
    said = await told(health)
    await asyncio.gather(*(told(health) for _ in range(50)))
    within_the_second = asked
    clock.now += 1.1
    await asyncio.gather(*(told(health) for _ in range(50)))

    assert (said["status"], said["stores"]) == ("ok", {"s": {"type": "memory", "state": "ok"}})
    assert (within_the_second, asked) == (1, 2)
    assert not len(tasks)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreUnavailable("redis://user:hunter2@host"), "store_unavailable"),
        (KeyError("hunter2"), "store_failed"),
        (SystemExit(3), "store_failed"),
    ],
)
async def test_a_store_that_raises_is_failing(error: BaseException, code: str) -> None:
    clock, tasks, broken = Clock(), Tasks(), True

    async def get() -> bytes | None:
        if broken:
            raise error
        return None

    health = asking(Stored(get), clock, tasks)
    await told(health)
    clock.now += 3
    reply = await health.health(ASKED)
    broken = False
    clock.now += 3
    after = await told(health)

    said = json.loads(reply.body)
    reason = {"part": "store.s", "code": code, "message": "it cannot be asked", "age_s": 3.0}
    assert (said["status"], said["reasons"]) == ("degraded", [reason])
    assert b"hunter2" not in reply.body
    assert (after["status"], after["stores"]["s"]["state"]) == ("ok", "ok")


async def test_a_store_that_hangs_is_named_and_its_question_given_up() -> None:
    """Whatever is stuck, the answer comes: the bound of the test is far beyond the store's 0.25 s."""
    clock, tasks, cancelled = Clock(), Tasks(), asyncio.Event()

    async def get() -> bytes | None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return None

    health = asking(Stored(get), clock, tasks)
    async with asyncio.timeout(20):
        said = await told(health)
        await cancelled.wait()
        await tasks.drain(1)

    (reason,) = said["reasons"]
    assert (reason["part"], reason["code"]) == ("store.s", "store_timeout")
    assert reason["message"] == "it gave no answer within 0.25 s"


async def test_a_store_that_does_not_let_go_is_asked_no_second_time() -> None:
    """It swallows its cancellation: all that ask for health meanwhile share the one question."""
    clock, tasks, asked, let_go = Clock(), Tasks(), 0, asyncio.Event()

    async def get() -> bytes | None:
        nonlocal asked
        asked += 1
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()
        return None

    health = asking(Stored(get), clock, tasks)
    async with asyncio.timeout(20):
        await asyncio.gather(*(told(health) for _ in range(20)))
        for _ in range(20):
            clock.now += 1.1
            await told(health)
        said = await told(health)
        pending = len(tasks)
        let_go.set()
        await tasks.drain(10)
        clock.now += 1.1
        after = await told(health)

    assert (asked, pending) == (2, 1)  # the second one is the last, of the store that answers again
    assert said["stores"]["s"]["error"]["code"] == "store_timeout"
    assert after["stores"]["s"]["state"] == "ok"


async def test_stores_are_asked_side_by_side() -> None:
    """Each waits for the other: one after the other both would time out."""
    both = asyncio.Barrier(2)

    async def get() -> bytes | None:
        async with both:
            return None

    mapping = {**openai_at("http://127.0.0.1:9/v1"), "store": {"a": {"type": "memory"}, "b": {"type": "memory"}}}
    config, _ = structure(mapping, Registry.of(*STANDARD_PLUGINS), {})
    stores = {"a": Stored(get), "b": Stored(get)}
    health = Health(config, Life(), version="1", clock=time.monotonic, in_flight=int, stores=stores, tasks=Tasks())

    said = await told(health)

    assert {name: it["state"] for name, it in said["stores"].items()} == {"a": "ok", "b": "ok"}


async def test_a_reload_keeps_what_is_known_of_a_store_and_drops_those_that_are_gone() -> None:
    clock, tasks, hanging = Clock(), Tasks(), asyncio.Event()

    async def refused() -> bytes | None:
        raise StoreUnavailable("no")

    async def hangs() -> bytes | None:
        hanging.set()
        await asyncio.Event().wait()
        return None

    mapping = openai_at("http://127.0.0.1:9/v1")
    two = {**mapping, "store": {"s": {"type": "memory"}, "t": {"type": "memory"}}}
    config, _ = structure(two, Registry.of(*STANDARD_PLUGINS), {})
    kept = Stored(refused)
    health = Health(
        config, Life(), version="1", clock=clock, in_flight=int, stores={"s": kept, "t": Stored(hangs)}, tasks=tasks
    )
    asked = tasks.start(told(health), name="asked")
    await hanging.wait()
    one, _ = structure({**mapping, "store": {"s": {"type": "memory"}}}, Registry.of(*STANDARD_PLUGINS), {})

    health.configure(one, {"s": kept})

    async with asyncio.timeout(20):
        said = await asked
        await tasks.drain(10)
    assert list(said["stores"]) == ["s"]
    assert said["stores"]["s"]["state"] == "failing"


async def test_a_store_is_told_of_in_the_log_when_that_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="llmproxy")
    clock, broken = Clock(), True

    async def get() -> bytes | None:
        if broken:
            raise StoreUnavailable("redis://user:hunter2@host")
        return None

    health = asking(Stored(get), clock, Tasks())
    for _ in range(3):
        await told(health)
        clock.now += 2
    broken = False
    await told(health)

    assert [(it.getMessage(), vars(it)["fields"]) for it in caplog.records] == [
        ("a store does not answer as it should", {"store": "s", "reason": "store_unavailable"}),
        ("a store answers again", {"store": "s"}),
    ]


# -- several workers -------------------------------------------------------------------------------------------------


async def told(health: Health) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((await health.health(ASKED)).body)
    return said


async def worker(**of_llm: Any) -> EndpointReply:
    """What a worker says in which *of_llm* (seconds ago, by what it came to) was tried."""
    clock, life = Clock(), Life()
    health = health_of(clock, life)
    life.ready = True
    clock.now += 100
    for kind, ago_s in sorted(of_llm.items(), key=lambda item: -item[1]):
        clock.now -= ago_s
        error = None if kind == "ok" else UpstreamCut("gone")
        health.learn([Attempt("openai", "m", 0.0, status=200, error=error)])
        clock.now += ago_s
    return await health.health(ASKED)


async def test_the_merged_answer_adds_and_takes_the_worst_word() -> None:
    said = json.loads(merge([await worker(), await worker(failed=4.0)]).body)

    assert said["status"] == "degraded"
    assert (said["in_flight"], said["uptime_s"], said["version"], said["draining"]) == (14, 100.0, "1.2", False)
    assert said["workers"] == {"expected": 2, "answering": 2, "missing": []}
    (reason,) = said["reasons"]
    assert reason == {
        "part": "llm.openai",
        "code": "upstream_cut",
        "message": "its last call failed",
        "age_s": 4.0,
        "workers": [2],
    }


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ({}, {}, "unknown"),
        ({}, {"failed": 9.0}, "failing"),
        ({"ok": 3.0}, {"failed": 9.0}, "ok"),
        ({"ok": 9.0}, {"failed": 3.0}, "failing"),
    ],
)
async def test_of_an_llm_counts_what_was_tried_last_whoever_did(
    first: dict[str, float], second: dict[str, float], state: str
) -> None:
    one, two = await worker(**first), await worker(**second)

    said = [json.loads(merge(order).body)["llms"]["openai"] for order in ([one, two], [two, one])]

    assert [it["state"] for it in said] == [state, state]
    assert ("last_error" in said[0]) == ("failed" in second)


async def test_a_worker_that_gives_no_answer_is_named() -> None:
    for nothing in (EndpointReply(b"", status=503), EndpointReply(b"nonsense"), EndpointReply(b"[]")):
        said = json.loads(merge([await worker(), nothing, await worker()]).body)

        assert said["status"] == "degraded"
        assert said["reasons"] == [
            {"part": "worker.2", "code": "worker_missing", "message": "it gave no answer in time"}
        ]
        assert said["workers"] == {"expected": 3, "answering": 2, "missing": [2]}


def test_no_worker_at_all_is_said_too() -> None:
    said = json.loads(merge([EndpointReply(b"", status=503)] * 2).body)

    assert (said["status"], said["in_flight"], said["llms"]) == ("degraded", 0, {})
    assert said["workers"]["missing"] == [1, 2]


async def test_a_store_is_as_the_worker_has_it_that_is_worst_off() -> None:
    async def refused() -> bytes | None:
        raise StoreUnavailable("no")

    async def answers() -> bytes | None:
        return None

    well, ill = (asking(Stored(get), Clock(), Tasks()) for get in (answers, refused))
    replies = [await it.health(ASKED) for it in (well, ill, well)]

    said = json.loads(merge(replies).body)

    assert said["stores"]["s"]["state"] == "failing"
    assert said["reasons"][0]["workers"] == [2]


async def test_a_worker_that_drains_lets_all_drain() -> None:
    life = Life()
    health = health_of(Clock(), life)
    life.draining = True

    said = json.loads(merge([await health.health(ASKED), await worker(failed=1.0)]).body)

    assert (said["status"], said["draining"]) == ("draining", True)


def test_the_endpoint_is_asked_in_every_worker() -> None:
    merges = {it.path: it.merge for it in health_of(Clock(), Life()).endpoints()}

    assert merges == {"/health": merge, "/livez": None, "/readyz": None}
