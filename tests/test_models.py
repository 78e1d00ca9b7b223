"""`GET /v1/models[/id]`: from the configuration where it names models, else from the upstream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import pytest

from tests.exact import ask
from tests.proxy import Proxy, openai_at
from tests.speaking import Speaker, llm_at
from tests.upstream import Upstream, reply

LISTED = {"models": ["gpt-4o", "org/name", "50%", "gpt-*"]}
LIST = {"object": "list", "data": [{"id": "a", "object": "model", "own": 1}]}


@asynccontextmanager
async def models(**llm: Any) -> AsyncIterator[tuple[Upstream, Proxy]]:
    async with (
        Upstream(reply(LIST)) as upstream,
        Proxy(openai_at(upstream.base_url, route={"encoded_slash": True}, **llm)) as proxy,
    ):
        yield upstream, proxy


async def get(proxy: Proxy, path: str) -> tuple[int, Any]:
    seen = await ask("GET", proxy.base_url + path)
    return seen.status, json.loads(seen.body)


async def test_names_that_are_written_out_are_listed_without_asking_anybody() -> None:
    async with models(**LISTED) as (upstream, proxy):
        status, answer = await get(proxy, "/models")

        assert (status, answer["object"]) == (200, "list")
        assert [each["id"] for each in answer["data"]] == ["gpt-4o", "org/name", "50%"]
        assert not upstream.requests


async def test_the_names_that_callers_use_are_listed_not_those_that_are_sent() -> None:
    async with models(models={"fast": "gpt-4o-mini", "smart": "gpt-4o"}) as (_, proxy):
        _, answer = await get(proxy, "/models")

    assert [each["id"] for each in answer["data"]] == ["fast", "smart"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/gpt-4o", "gpt-4o"),
        ("/models/org/name", "org/name"),
        ("/models/org%2Fname", "org/name"),
        ("/models/50%25", "50%"),
        ("/models/gpt-5", "gpt-5"),  # by the glob
    ],
)
async def test_one_model_is_found_by_its_name(path: str, name: str) -> None:
    async with models(**LISTED) as (upstream, proxy):
        status, answer = await get(proxy, path)

        assert (status, answer["id"], answer["object"]) == (200, name, "model")
        assert not upstream.requests


@pytest.mark.parametrize("path", ["/models/claude", "/models/org", "/models/50%2525", "/models/org%252Fname"])
async def test_a_model_that_is_not_served_is_not_found(path: str) -> None:
    async with models(**LISTED) as (upstream, proxy):
        status, answer = await get(proxy, path)

        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert not upstream.requests


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/models", "/v1/models"),
        ("/models?after=x&limit=3&api_key=mine&secret=1", "/v1/models?after=x&limit=3&secret=1"),
        ("/models/org/name", "/v1/models/org/name"),
        ("/models/org%2Fname?api_key=mine", "/v1/models/org%2Fname"),
        ("/models/a%20b%25?limit=%C3%A4", "/v1/models/a%20b%25?limit=%C3%A4"),
        ("/models/a%3Fb%23c", "/v1/models/a%3Fb%23c"),
    ],
)
async def test_where_no_names_are_configured_the_upstream_is_asked(path: str, target: str) -> None:
    async with models() as (upstream, proxy):
        assert await get(proxy, path) == (200, LIST)
        assert upstream.requests[0].target == target


async def test_an_encoded_slash_is_refused_unless_the_route_allows_it() -> None:
    async with Upstream(reply(LIST)) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        status, answer = await get(proxy, "/models/org%2Fname")

        assert (status, answer["error"]["code"]) == (400, "ambiguous_path")
        assert not upstream.requests


async def test_a_group_lists_what_its_members_name() -> None:
    async with Upstream(reply(LIST)) as upstream:
        mapping = {
            "llm": {
                "a": {"provider": "openai", "base_url": upstream.base_url, "models": ["one", "two"]},
                "b": {"provider": "openai", "base_url": upstream.base_url, "models": {"three": "3", "two": "2"}},
                "all": {"provider": "by_model", "members": ["a", "b"]},
            },
            "route": [{"path_prefix": "/v1", "target_llm": "all"}],
        }
        async with Proxy(mapping) as proxy:
            _, answer = await get(proxy, "/models")
            found, _ = await get(proxy, "/models/three")
            missing, _ = await get(proxy, "/models/four")

    assert [each["id"] for each in answer["data"]] == ["one", "two", "three"]
    assert (found, missing) == (200, 404)


GEMINIS = {"models": [{"name": "models/a", "displayName": "A"}]}
ANTHROPICS = {"data": [{"type": "model", "id": "a", "display_name": "A"}], "has_more": False}


@pytest.mark.parametrize(("llm", "told", "page"), [("gemini", GEMINIS, "pageSize"), ("anthropic", ANTHROPICS, "limit")])
async def test_a_client_of_another_protocol_is_told_of_the_longest_page_that_there_is(
    llm: str, told: dict[str, Any], page: str
) -> None:
    async with Upstream(reply(told)) as upstream:
        mapping = {
            "llm": {"main": llm_at(llm, upstream.url)},
            "route": [{"path_prefix": "/", "target_llm": "main"}],
        }
        async with Proxy(mapping, plugins=(llmproxy_gemini, llmproxy_anthropic)) as proxy:
            seen = await ask("GET", f"{proxy.url}/v1/models?limit=7&after=x")
            client = Speaker(llm)
            own = await ask("GET", f"{proxy.url}{client.dialect.roots[0]}/models", headers=client.headers())

    assert [it["id"] for it in json.loads(seen.body)["data"]] == ["a"]
    assert json.loads(own.body) == told
    assert [it.target.partition("?")[2] for it in upstream.requests] == [f"{page}=1000", ""]
