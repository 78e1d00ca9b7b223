"""Health: what is said of the process and of its LLMs."""

import json

import pytest

from llmproxy_core import End, Exchange, Operation, Request, Tasks
from llmproxy_core.config import structure
from llmproxy_core.endpoint import EndpointRequest
from llmproxy_core.errors import UpstreamAuthError, UpstreamCut, UpstreamError
from llmproxy_core.exchange import Attempt
from llmproxy_core.headers import Headers
from llmproxy_core.plugins import Registry
from llmproxy_server.health import Health
from llmproxy_server.life import Life
from tests.llmproxy_server.edging import STREAM, ask, post, request
from tests.proxy import STANDARD_PLUGINS, Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Chunk, Cut, Head, Step, Upstream, chat_chunk, completion, error, reply, sse


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def health_of(clock: Clock, life: Life) -> Health:
    mapping = openai_at("http://127.0.0.1:9/v1")
    mapping["llm"]["off"] = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "enabled": False}
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
        "status": "ok",
        "version": "1.2",
        "uptime_s": 5.0,
        "draining": False,
        "in_flight": 7,
        "llms": {
            "openai": {
                "provider": "openai",
                "enabled": True,
                "state": "failing",
                "last_error": {"code": "upstream_cut", "age_s": 5.0},
            },
            "off": {"provider": "openai", "enabled": False, "state": "unknown"},
        },
    }


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
    health.watch(call)
    child, shared = call.child(request), call.detach(request)
    child.attempts.append(Attempt("openai", "m", started_s=1.0, status=200))
    call.finish(End.COMPLETED)
    before = await _state(health)
    shared.attempts.append(Attempt("openai", "m", started_s=2.0, error=UpstreamCut("gone")))

    shared.finish(End.FAILED)

    assert before == "unknown"
    assert await _state(health) == "failing"


async def _state(health: Health) -> object:
    return json.loads((await health.health(ASKED)).body)["llms"]["openai"]["state"]
