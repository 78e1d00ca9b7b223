"""From a configuration to a gateway that serves: all or nothing."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from llmproxy_core import (
    BadRequest,
    ConfigError,
    End,
    MethodNotAllowed,
    Operation,
    ProcessorFailed,
    Reply,
    Request,
    RouteNotFound,
    StreamingNotAllowed,
    Tasks,
)
from llmproxy_core.exchange import ANONYMOUS
from llmproxy_core.gateway import chain_names, route_dialects
from tests.llmproxy_core.conversation import SOON_S, events, question, said, whole
from tests.llmproxy_core.made_gateway import LOCAL, Canned, Made, Pathy, one_route
from tests.llmproxy_core.transport_double import EVENTS, Played

# -- a call ----------------------------------------------------------------------------------------------------------


async def test_a_call_goes_through_its_route_to_its_llm(tasks: Tasks) -> None:
    made = Made(one_route(), tasks, Played([whole("hello")]))

    exchange, response = await made.handle("POST", "/v1/chat/completions", question())

    assert isinstance(response, Reply)
    assert said(response.body) == "hello"
    assert made.transport.request.url == "http://localhost:1/v1/chat/completions"
    assert (exchange.id, exchange.route, exchange.caller) == ("7", "/v1", ANONYMOUS)
    assert exchange.client is not None
    assert exchange.client.stream is False


async def test_an_exchange_knows_its_client_and_the_gateways_background(tasks: Tasks) -> None:
    made = Made(one_route(), tasks)

    exchange = made.exchange("POST", "/v1/chat/completions", question(stream=True, usage=True))
    shared = exchange.detach(Request(operation=Operation.CHAT))

    assert exchange.client is not None
    assert (exchange.client.stream, exchange.client.wants_usage) == (True, True)
    assert made.gateway.background == {shared}
    shared.finish(End.COMPLETED)
    assert made.gateway.background == set()


async def test_a_body_that_is_no_json_begins_no_exchange(tasks: Tasks) -> None:
    with pytest.raises(BadRequest):
        Made(one_route(), tasks).exchange("POST", "/v1/chat/completions", b"{")


async def test_what_nothing_serves_is_refused_before_a_body_is_read(tasks: Tasks) -> None:
    gateway = Made(one_route(), tasks).gateway

    with pytest.raises(RouteNotFound):
        gateway.match("POST", "/v2/chat/completions")
    with pytest.raises(MethodNotAllowed):
        gateway.match("GET", "/v1/chat/completions")
    with pytest.raises(BadRequest):
        gateway.match("GET", "/v1/../x")


async def test_opaque_calls_go_through_where_they_are_listed(tasks: Tasks) -> None:
    made = Made(one_route({"operations": ["chat", "opaque"]}), tasks, Played([b"file"]))

    _, response = await made.handle("GET", "/v1/files/7")

    assert made.transport.request.url == "http://localhost:1/v1/files/7"
    response.finish(End.COMPLETED)
    with pytest.raises(RouteNotFound):
        Made(one_route(), tasks).gateway.match("GET", "/v1/files/7")


async def test_a_processor_that_answers_with_nothing_is_named_with_the_cause(tasks: Tasks) -> None:
    table = {"processor": {"broken": {"type": "nothing"}, "outer": {"type": "mark"}}}
    mapping = one_route({"processors": ["outer", "broken"]}) | table

    with pytest.raises(ProcessorFailed, match="'broken'") as raised:
        await Made(mapping, tasks).ask()

    assert isinstance(raised.value.__cause__, TypeError)


# -- chains ----------------------------------------------------------------------------------------------------------

MARKED = {
    "llm": {"local": {**LOCAL, "models": ["a"]}},
    "processor": {
        "first": {"type": "mark", "mark": "1"},
        "chat": {"type": "chat_mark", "mark": "c"},
        "last": {"type": "mark", "mark": "2"},
    },
    "route": [{"path_prefix": "/v1", "target_llm": "local", "processors": ["first", "chat", "last"]}],
}


@pytest.mark.parametrize(
    ("method", "path", "body", "marks"),
    [
        ("POST", "/v1/chat/completions", question(model="a"), ["1", "c", "2"]),
        ("POST", "/v1/embeddings", b'{"model":"a","input":"x"}', ["1", "2"]),
        ("GET", "/v1/models", b"", ["1", "2"]),
    ],
)
async def test_processors_run_outermost_first_and_the_skippable_are_left_out(
    tasks: Tasks, method: str, path: str, body: bytes, marks: list[str]
) -> None:
    made = Made(MARKED, tasks, Played([whole("hi")]))

    exchange, _ = await made.handle(method, path, body)

    assert [mark for _, mark in exchange.response_headers] == marks


async def test_a_route_can_tell_its_chains(tasks: Tasks) -> None:
    made = Made(MARKED, tasks)

    (route,) = made.gateway.routes

    assert route.steps == {
        Operation.CHAT: ("first", "chat", "last"),
        Operation.COUNT_TOKENS: ("first", "last"),
        Operation.EMBEDDINGS: ("first", "last"),
        Operation.MODELS: ("first", "last"),
    }
    assert set(route.chains) == set(route.steps)
    assert chain_names(route.config, Operation.OPAQUE, made.config.processors) == ("first", "last")
    assert route.llm is made.gateway.llms["local"]


async def test_one_processor_may_stand_in_several_routes(tasks: Tasks) -> None:
    routes = [{"path_prefix": it, "target_llm": "local", "processors": ["first"]} for it in ("/v1", "/team/v1")]
    made = Made(MARKED | {"route": routes}, tasks, Played([whole("a")]), Played([whole("b")]))

    first, _ = await made.handle("POST", "/v1/chat/completions", question(model="a"))
    second, _ = await made.handle("POST", "/team/v1/chat/completions", question(model="a"))

    assert first.response_headers == second.response_headers == [("x-mark", "1")]
    assert (first.route, second.route) == ("/v1", "/team/v1")


# -- one mode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "stream", "advice"),
    [
        ({"allow_streaming": False}, True, '"stream": false'),
        ({"allow_non_streaming": False}, False, '"stream": true'),
    ],
)
async def test_a_route_refuses_the_mode_it_does_not_allow_before_any_processor(
    tasks: Tasks, route: dict[str, object], stream: bool, advice: str
) -> None:
    mapping = one_route({**route, "processors": ["first"]}) | {"processor": {"first": {"type": "mark"}}}
    made = Made(mapping, tasks)
    exchange = made.exchange("POST", "/v1/chat/completions", question(stream=stream))

    with pytest.raises(StreamingNotAllowed) as refused:
        await asyncio.wait_for(made.gateway.handle(exchange), SOON_S)

    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "streaming_not_allowed", "stream")
    assert advice in refused.value.message
    assert exchange.response_headers == []
    assert made.transport.requests == []


@pytest.mark.parametrize(
    ("route", "stream"), [({"allow_streaming": False}, False), ({"allow_non_streaming": False}, True)]
)
async def test_a_route_serves_the_mode_it_allows(tasks: Tasks, route: dict[str, object], stream: bool) -> None:
    answer = Played(events("hi"), headers=EVENTS) if stream else Played([whole("hi")])
    made = Made(one_route(route), tasks, answer)

    exchange, _ = await made.handle("POST", "/v1/chat/completions", question(stream=stream))

    assert len(made.transport.requests) == 1
    exchange.finish(End.ABANDONED)


async def test_the_modes_are_those_of_conversations_alone(tasks: Tasks) -> None:
    made = Made(one_route({"allow_non_streaming": False}), tasks, Played([b'{"data":[]}']))

    await made.ask("/v1/embeddings", b'{"model":"m","input":"x"}')

    assert len(made.transport.requests) == 1


# -- model lists -----------------------------------------------------------------------------------------------------


async def _models(made: Made, path: str = "/v1/models") -> Any:
    _, response = await made.handle("GET", path)
    assert isinstance(response, Reply)
    return json.loads(response.body)


async def test_the_configured_models_are_listed_with_the_time_of_loading(tasks: Tasks) -> None:
    made = Made(one_route(models={"alias": "real", "gpt-*": "gpt-4o", "plain": "plain"}), tasks)

    listed = await _models(made)

    assert [entry["id"] for entry in listed["data"]] == ["alias", "plain"]
    assert {entry["created"] for entry in listed["data"]} == {1_700_000_000}
    assert made.transport.requests == []


async def test_a_group_lists_the_models_of_its_members(tasks: Tasks) -> None:
    mapping = {
        "llm": {
            "a": {**LOCAL, "models": ["one", "two-*"]},
            "b": {**LOCAL, "models": ["three", "one"]},
            "all": {"provider": "by_model", "members": ["a", "b"]},
        },
        "route": [{"path_prefix": "/v1", "target_llm": "all"}],
    }

    listed = await _models(Made(mapping, tasks))

    assert [entry["id"] for entry in listed["data"]] == ["one", "three"]


async def test_without_configured_models_the_upstream_is_asked(tasks: Tasks) -> None:
    made = Made(one_route(), tasks, Played([b'{"object":"list","data":[{"id":"theirs"}]}']))

    listed = await _models(made)

    assert [entry["id"] for entry in listed["data"]] == ["theirs"]
    assert made.transport.request.url == "http://localhost:1/v1/models"


async def test_one_configured_model_is_told(tasks: Tasks) -> None:
    made = Made(one_route(models=["gpt-*", "plain"]), tasks)

    assert (await _models(made, "/v1/models/plain"))["id"] == "plain"
    assert (await _models(made, "/v1/models/gpt-9"))["id"] == "gpt-9"  # served, though not written out


async def test_a_model_that_is_not_served_does_not_exist(tasks: Tasks) -> None:
    made = Made(one_route(models=["plain"]), tasks)

    with pytest.raises(RouteNotFound) as refused:
        await made.handle("GET", "/v1/models/other")

    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


async def test_one_unconfigured_model_is_the_upstreams_to_tell(tasks: Tasks) -> None:
    made = Made(one_route(), tasks, Played([b'{"id":"org/x"}']))

    assert (await _models(made, "/v1/models/org/x"))["id"] == "org/x"
    assert made.transport.request.url == "http://localhost:1/v1/models/org/x"


# -- groups ----------------------------------------------------------------------------------------------------------


async def test_one_route_serves_all_models_through_a_group(tasks: Tasks) -> None:
    mapping = {
        "llm": {
            "all": {"provider": "by_model", "members": ["remote", "canned"]},
            "remote": {**LOCAL, "models": ["gpt-*"]},
            "canned": {"provider": "canned", "models": ["demo"], "says": "from memory"},
        },
        "route": [{"path_prefix": "/v1", "target_llm": "all"}],
    }
    made = Made(mapping, tasks, Played([whole("from afar")]))

    remote = await made.ask(body=question(model="gpt-4o"))
    canned = await made.ask(body=question(model="demo"))

    assert (await remote.reply()).text == "from afar"
    assert (await canned.reply()).text == "from memory"


# -- dialects --------------------------------------------------------------------------------------------------------


def _dialects(tasks: Tasks, llm: Mapping[str, object], **route: object) -> list[str]:
    made = Made(
        {"llm": {"local": llm}, "route": [{"path_prefix": "/v1", "target_llm": "local", **route}]},
        tasks,
        plugins=[Pathy()],
    )
    (found,) = made.config.routes
    return [it.name for it in route_dialects(found, made.config.llms["local"], made.registry)]


async def test_a_routes_clients_may_speak_every_dialect_the_llms_own_first(tasks: Tasks) -> None:
    pathy = {**LOCAL, "provider": "pathy"}

    others = ["openai-responses", "pathy"]

    assert _dialects(tasks, LOCAL) == ["openai", *others]
    assert _dialects(tasks, pathy) == ["pathy", "openai", "openai-responses"]
    assert _dialects(tasks, {**pathy, "type": "chat"}) == ["openai", *others]
    assert _dialects(tasks, {"provider": "canned"}) == ["openai", *others]  # it has none of its own


async def test_a_route_may_name_its_dialect(tasks: Tasks) -> None:
    assert _dialects(tasks, LOCAL, dialect="pathy", operations=["chat"]) == ["pathy"]


# -- all or nothing --------------------------------------------------------------------------------------------------


async def test_the_problems_of_all_factories_are_told_at_once(tasks: Tasks) -> None:
    mapping = {
        "llm": {
            "good": {"provider": "canned"},
            "bad": {"provider": "canned", "broken": True},
            "worse": {"provider": "canned", "broken": True},
        },
        "processor": {"p": {"type": "mark", "broken": True}, "fine": {"type": "mark"}},
        "route": [{"path_prefix": "/v1", "target_llm": "good", "processors": ["p", "fine"]}],
    }

    with pytest.raises(ConfigError) as raised:
        Made(mapping, tasks)

    assert [(it.path, it.message) for it in raised.value.problems] == [
        ("llm.bad.says", "refused by its factory"),
        ("llm.worse.says", "refused by its factory"),
        ("processor.p.mark", "refused by its factory"),
        ("processor.p", "and for another reason"),
    ]


async def test_an_llm_that_is_switched_off_is_not_built(tasks: Tasks) -> None:
    mapping = one_route()
    mapping["llm"]["off"] = {"provider": "canned", "enabled": False, "broken": True}

    assert set(Made(mapping, tasks).gateway.llms) == {"local"}


async def test_factories_get_the_services_and_llms_find_each_other_once_all_are_built(tasks: Tasks) -> None:
    mapping = {
        "llm": {"b": {"provider": "canned"}, "a": {"provider": "canned"}},
        "route": [{"path_prefix": "/v1", "target_llm": "a"}],
    }
    made = Made(mapping, tasks)
    first = made.gateway.llms["b"]

    assert isinstance(first, Canned)
    assert first.services.tasks is made.gateway.services.tasks
    assert first.services.table == "llm.b"
    assert first.services.llm("a") is made.gateway.llms["a"]
    with pytest.raises(KeyError):
        first.services.llm("absent")


async def test_closing_a_gateway_closes_every_llm_once(tasks: Tasks) -> None:
    mapping = {
        "llm": {"b": {"provider": "canned"}, "a": {"provider": "canned"}},
        "route": [{"path_prefix": "/v1", "target_llm": "a"}],
    }
    gateway = Made(mapping, tasks).gateway

    await asyncio.wait_for(gateway.aclose(), SOON_S)

    assert [llm.closed for llm in gateway.llms.values() if isinstance(llm, Canned)] == [1, 1]


async def test_an_llm_that_cannot_be_closed_keeps_no_other_open(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mapping = {
        "llm": {"b": {"provider": "canned"}, "a": {"provider": "canned"}},
        "route": [{"path_prefix": "/v1", "target_llm": "a"}],
    }
    gateway = Made(mapping, tasks).gateway
    first, second = gateway.llms.values()

    async def refuse() -> None:
        raise ZeroDivisionError("a bug of a plugin")

    monkeypatch.setattr(first, "aclose", refuse)
    await asyncio.wait_for(gateway.aclose(), SOON_S)

    assert isinstance(second, Canned)
    assert second.closed == 1
    assert "could not be closed" in caplog.text
