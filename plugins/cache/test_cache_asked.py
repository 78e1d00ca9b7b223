"""What a request, its caller and the configuration ask of the cache."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import llmproxy_cache
import pytest
from llmproxy_cache import CacheConfig
from llmproxy_cache.directives import Directives
from test_cache_kit import Cached, caching, listening, reply_in, status

from llmproxy_core import Caller, Exchange, Handler, Headers, Response, builtin_stores
from llmproxy_core.errors import ConfigError
from llmproxy_core.plugins import Registry
from llmproxy_server.loader import load
from tests.answers import chat_chunk, completion, reply, sse, stream
from tests.exact import ask
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.edging import Processing
from tests.proxy import STANDARD_PLUGINS
from tests.script import Chunk, End, Head, Step, Wait
from tests.upstream import Upstream

PLAIN = reply(completion("Hello"))
_SAID = {"type": "output_text", "text": "Hello", "annotations": []}
_MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [_SAID]}
RESPONSE = reply(
    {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m",
        "output": [_MESSAGE],
        "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
    }
)

# -- Cache-Control -----------------------------------------------------------------------------------------------------

SAID: dict[str, Directives] = {
    "": Directives(),
    "no-cache": Directives(no_cache=True),
    "No-Store": Directives(no_store=True),
    "no-cache, no-store": Directives(no_store=True, no_cache=True),
    "max-age=60": Directives(max_age_s=60),
    "  MAX-AGE = 60 ,x": Directives(max_age_s=60),
    'max-age="60"': Directives(max_age_s=60),
    "max-age=0": Directives(max_age_s=0),
    "max-age=99999999999999999999": Directives(max_age_s=999_999_999),
    "max-age": Directives(max_age_s=0),
    "max-age=": Directives(max_age_s=0),
    "max-age=-1": Directives(max_age_s=0),
    "max-age=1.5": Directives(max_age_s=0),
    "max-age=\u0661": Directives(max_age_s=0),
    "only-if-cached, no-transform": Directives(),
    "xno-cache, no-storex": Directives(),
    ",,=,": Directives(),
}


@pytest.mark.parametrize(("text", "directives"), SAID.items(), ids=SAID.keys())
def test_directives_are_read_as_the_standard_has_them(text: str, directives: Directives) -> None:
    assert Directives.of(Headers([("cache-control", text)] if text else [])) == directives


def test_directives_in_several_fields_are_one_list() -> None:
    fields = [("cache-control", "max-age=5"), ("x", "no-cache"), ("cache-control", "no-store")]

    assert Directives.of(Headers(fields)) == Directives(no_store=True, max_age_s=5)


@pytest.mark.parametrize(
    ("max_age_s", "age_s", "refused"),
    [(None, 1e9, False), (5, 4.9, False), (5, 5.0, False), (5, 5.1, True), (0, 0.0, True)],
)
def test_an_answer_is_refused_when_it_is_older_than_asked(max_age_s: int | None, age_s: float, refused: bool) -> None:
    assert Directives(max_age_s=max_age_s).refuses(age_s) is refused


async def test_no_cache_asks_anew_and_keeps_what_comes() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(question())
        upstream.script = reply(completion("newer"))
        seen = [await proxy.ask(question(), ("cache-control", "no-cache")), await proxy.ask(question())]

    assert [status(it) for it in seen] == ["miss", "hit"]
    assert [reply_in(it).text for it in seen] == ["newer", "newer"]


async def test_no_store_passes_by_and_leaves_what_is_there() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        first = await proxy.ask(question(), ("cache-control", "no-store"))
        await proxy.ask(question())
        upstream.script = reply(completion("newer"))
        seen = [await proxy.ask(question(), ("cache-control", "no-store")), await proxy.ask(question())]

    assert status(first) == "bypass"
    assert first.header("x-llmproxy-cache-key") is None
    assert [status(it) for it in seen] == ["bypass", "hit"]
    assert [reply_in(it).text for it in seen] == ["newer", "Hello"]
    assert proxy.statuses() == ["bypass", "miss", "bypass", "hit"]


async def test_max_age_takes_what_is_young_enough() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(question())
        proxy.wall.now += 30
        asked = ("max-age=30", "max-age=29", "max-age=29", "max-age=0", "max-age=x")
        seen = [await proxy.ask(question(), ("cache-control", it)) for it in asked]

    assert [status(it) for it in seen] == ["hit", "miss", "hit", "miss", "miss"]


async def test_who_asks_anew_does_not_wait_for_what_is_under_way() -> None:
    go_on = asyncio.Event()
    rest = Chunk(sse(chat_chunk("one"), chat_chunk(None, finish="stop")))
    old_one: list[Step] = [Head(), Chunk(sse(chat_chunk("old "), done=False)), Wait(go_on), rest, End()]
    async with Upstream() as upstream, Cached(caching(upstream.base_url)) as proxy:
        upstream.then(old_one, reply(completion("new one")))
        async with listening(proxy, question(stream=True)) as client:
            await client.until(b"old ")
            anew = await proxy.ask(question(), ("cache-control", "no-cache"))
            go_on.set()
            old = await client.rest()
        later = await proxy.ask(question())

    assert [status(it) for it in (old, anew, later)] == ["miss", "miss", "hit"]
    assert [reply_in(it).text for it in (old, anew, later)] == ["old one", "new one", "new one"]


# -- who asks ----------------------------------------------------------------------------------------------------------


async def _who(exchange: Exchange, call_next: Handler) -> Response:
    """Believes a header: what an authenticating processor would do."""
    name, _, tenant = exchange.request.headers.get("x-who", "").partition("@")
    exchange.caller = Caller(name, tenant)
    return await call_next(exchange)


@pytest.mark.parametrize(
    ("share", "statuses"),
    [("caller", ["miss", "hit", "miss", "miss", "hit"]), ("tenant", ["miss", "hit", "hit", "miss", "hit"])],
)
async def test_whose_answer_somebody_gets(share: str, statuses: list[str]) -> None:
    callers = ("ann@acme", "ann@acme", "bob@acme", "ann@umbrella", "ann@umbrella")
    async with (
        Upstream(PLAIN) as upstream,
        Cached(caching(upstream.base_url, chain=["around", "cache"], share=share), plugins=[Processing(_who)]) as proxy,
    ):
        seen = [await proxy.ask(question(), ("x-who", who)) for who in callers]

    assert [status(it) for it in seen] == statuses


async def test_a_call_under_way_is_not_shared_with_another_caller() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *PLAIN]) as upstream,
        Cached(caching(upstream.base_url, chain=["around", "cache"]), plugins=[Processing(_who)]) as proxy,
        asyncio.TaskGroup() as group,
    ):
        asked = [group.create_task(proxy.ask(question(), ("x-who", who))) for who in ("ann@a", "bob@a", "ann@a")]
        await proxy.until(lambda: len(proxy.statuses()) == 3 and all(proxy.statuses()))
        go_on.set()

    assert sorted(str(status(it.result())) for it in asked) == ["miss", "miss", "shared"]
    assert len(upstream.requests) == 2


async def test_a_header_that_may_change_the_answer_makes_another_question() -> None:
    beta = ("openai-beta", "x=1")
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        seen = [await proxy.ask(question(), *headers) for headers in ([], [beta], [beta], [("x-other", "1")])]

    assert [status(it) for it in seen] == ["miss", "miss", "hit", "hit"]


# -- which requests ----------------------------------------------------------------------------------------------------

TEMPERATURES: list[tuple[float | None, dict[str, Any], str]] = [
    (None, {"temperature": 2}, "hit"),
    (0.5, {"temperature": 0.5}, "hit"),
    (0.5, {"temperature": 0}, "hit"),
    (0.5, {"temperature": 0.6}, "bypass"),
    (0.5, {}, "bypass"),
    (0.5, {"temperature": None}, "bypass"),
    (1, {}, "hit"),
    (0, {"temperature": 0.0}, "hit"),
    (0, {"temperature": 0.001}, "bypass"),
]


@pytest.mark.parametrize(("bound", "said", "second"), TEMPERATURES)
async def test_what_is_random_on_purpose_passes_by(bound: float | None, said: dict[str, Any], second: str) -> None:
    keys: dict[str, Any] = {} if bound is None else {"max_temperature": bound}
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url, **keys)) as proxy:
        seen = [await proxy.ask(question(**said)) for _ in range(2)]

    assert status(seen[1]) == second
    assert len(upstream.requests) == (1 if second == "hit" else 2)


ACTING = {
    "a conversation that the provider keeps": ({"conversation": "conv_1"}, "bypass"),
    "in the background": ({"background": True}, "bypass"),
    "not in the background": ({"background": False}, "hit"),
    "a tool of the provider's": (
        {"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://a/"}]},
        "bypass",
    ),
    "a tool of the client's": ({"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]}, "hit"),
    "an answer that is kept": ({"store": True}, "hit"),
}


@pytest.mark.parametrize(("said", "second"), ACTING.values(), ids=ACTING)
async def test_where_the_provider_does_more_than_answer_nothing_kept_stands_for_it(said: Any, second: str) -> None:
    body = json.dumps({"model": "m", "input": "next", **said}).encode()
    async with Upstream(RESPONSE) as upstream, Cached(caching(upstream.base_url, llm={"type": "responses"})) as proxy:
        seen = [await proxy.ask(body, path="/v1/responses") for _ in range(2)]

    assert status(seen[1]) == second
    assert len(upstream.requests) == (1 if second == "hit" else 2)


async def test_it_does_so_however_it_is_asked_to() -> None:
    body = rb'{"model":"m","input":"next","\u0062ackgroun\u0064":true}'
    async with Upstream(RESPONSE) as upstream, Cached(caching(upstream.base_url, llm={"type": "responses"})) as proxy:
        seen = [await proxy.ask(body, path="/v1/responses") for _ in range(2)]

    assert [status(it) for it in seen] == ["bypass", "bypass"]


async def test_embeddings_have_no_temperature() -> None:
    script = reply({"object": "list", "data": [], "model": "e", "usage": {"prompt_tokens": 1, "total_tokens": 1}})
    async with Upstream(script) as upstream, Cached(caching(upstream.base_url, max_temperature=0)) as proxy:
        seen = [await proxy.ask(b'{"model":"e","input":"x"}', path="/v1/embeddings") for _ in range(2)]

    assert [status(it) for it in seen] == ["miss", "hit"]


async def test_what_we_cannot_read_is_still_the_providers_to_judge() -> None:
    """Asking for a temperature must not refuse what passed without a cache."""
    body = b'{"model":"m","messages":"a provider may know what this means"}'
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url, max_temperature=1)) as proxy:
        seen = await proxy.ask(body)

    assert (seen.status, status(seen)) == (200, "bypass")
    assert upstream.requests[0].body == body


async def test_a_member_that_comes_twice_deep_inside_passes_by() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a"}],"own":{"x":1,"x":2}}'
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        seen = [await proxy.ask(body) for _ in range(2)]

    assert [status(it) for it in seen] == ["bypass", "bypass"]
    assert [it.body for it in upstream.requests] == [body] * 2


async def test_other_operations_pass_by_without_a_word() -> None:
    async with (
        Upstream(reply({"object": "list", "data": []})) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
    ):
        seen = await ask("GET", f"{proxy.base_url}/models")

    assert (seen.status, status(seen)) == (200, None)


# -- switched off, and from the environment ----------------------------------------------------------------------------


async def test_switched_off_it_keeps_and_shares_nothing() -> None:
    async with Upstream(PLAIN) as upstream, Cached(caching(upstream.base_url, enabled=False)) as proxy:
        seen = [await proxy.ask(question()) for _ in range(2)]

    assert [status(it) for it in seen] == ["bypass", "bypass"]
    assert len(upstream.requests) == 2


TOML = """
[llm.one]
provider = "openai"
base_url = "http://localhost:1"

[processor.cache]
type = "cache"
ttl_s = 7200

[[route]]
path_prefix = "/v1"
target_llm = "one"
processors = ["cache"]
"""


def loaded(tmp_path: Path, **env: str) -> CacheConfig:
    path = tmp_path / "llmproxy.toml"
    path.write_text(TOML)
    registry = Registry.of(*STANDARD_PLUGINS, builtin_stores, llmproxy_cache)
    config = load(path, registry, env).config.processors["cache"].config
    assert isinstance(config, CacheConfig)
    return config


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    assert (loaded(tmp_path).enabled, loaded(tmp_path).ttl_s) == (True, 7200)
    assert loaded(tmp_path, CACHE_TTL="60").ttl_s == 60
    assert loaded(tmp_path, CACHE_TTL="5m").ttl_s == 300
    assert loaded(tmp_path, CACHE_ENABLED="false").enabled is False
    assert loaded(tmp_path, CACHE_ENABLED="1", CACHE_TTL="").enabled is True


@pytest.mark.parametrize("env", [{"CACHE_TTL": "soon"}, {"CACHE_TTL": "0"}, {"CACHE_ENABLED": "perhaps"}])
def test_a_variable_that_says_nothing_stops_the_start(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"CACHE_|ttl_s"):
        loaded(tmp_path, **env)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"ttl_s": 0}, "ttl_s"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"max_entry_bytes": "big"}, "max_entry_bytes"),
        ({"share": "everybody"}, "share"),
        ({"max_temperature": 3}, "max_temperature"),
        ({"store": "memori"}, 'did you mean "memory"'),
        ({"ttl": 5}, "ttl"),
    ],
)
def test_a_table_that_says_nothing_stops_the_start(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Cached(caching("http://localhost:1", **keys))


async def test_a_stream_is_asked_for_its_usage_whoever_asks() -> None:
    """So that a plain answer made of it has one."""
    steps = stream(chat_chunk("Hello"), chat_chunk(None, finish="stop"))
    async with Upstream(steps) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(question(stream=True))

    assert json.loads(upstream.requests[0].body)["stream_options"] == {"include_usage": True}
