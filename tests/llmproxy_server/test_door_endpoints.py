"""Endpoints of our own whose path ends in any segment."""

from __future__ import annotations

import pytest

from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import RouteNotFound
from tests.llmproxy_server.edging import Answer, Serves, ask, request
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected

NOWHERE = "http://127.0.0.1:9/v1"


async def last(asked: EndpointRequest) -> EndpointReply:
    return EndpointReply(asked.last.encode(), content_type="text/plain")


async def exact(asked: EndpointRequest) -> EndpointReply:
    return EndpointReply(b"exactly", content_type="text/plain")


PLUGIN = Serves(
    Endpoint("GET", "/own/calls", exact),
    Endpoint("GET", "/own/calls/all", exact),
    Endpoint("GET", "/own/calls/*", last),
    Endpoint("GET", "/own/local/*", last, local_only=True),
)


async def got(proxy: Proxy, data: bytes, *, method: str = "GET") -> Answer:
    async with connected(proxy.port) as client:
        return await ask(client, data, method=method)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/own/calls/1", b"1"),
        ("/own/calls/a.b-c_d?q=1", b"a.b-c_d"),
        ("/own/calls/a%20b", b"a%20b"),
        ("/own/calls/*", b"*"),
        ("/own/calls/all", b"exactly"),
        ("/own/calls", b"exactly"),
    ],
)
async def test_the_last_segment_is_given_as_it_came_unless_the_path_is_anothers(path: str, body: bytes) -> None:
    async with Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy:
        answer = await got(proxy, request("GET", path))

        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("path", ["/own/calls/", "/own/calls/1/2", "/own/calls/1/", "/own", "/own/1", "/1", "//"])
async def test_it_stands_for_one_segment_that_is_there(path: str) -> None:
    async with Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy:
        assert (await got(proxy, request("GET", path))).status >= 400


async def test_it_takes_the_methods_that_it_has() -> None:
    async with Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy:
        refused = await got(proxy, request("DELETE", "/own/calls/1"), method="DELETE")
        head = await got(proxy, request("HEAD", "/own/calls/1"), method="HEAD")

        assert (refused.status, refused["allow"]) == (405, "GET, HEAD")
        assert (head.status, head.body) == (200, b"")


async def test_it_is_for_this_machine_and_its_pages_as_any_other() -> None:
    async with Proxy(with_server(openai_at(NOWHERE), cors_allowed_origins=["*"]), plugins=[PLUGIN]) as proxy:
        page = "Origin: https://page.example"

        assert (await got(proxy, request("GET", "/own/local/1"))).status == 200
        assert (await got(proxy, request("GET", "/own/local/1", "Via: 1.1 x"))).code == "local_only"
        assert (await got(proxy, request("GET", "/own/local/1", page))).code == "origin_not_allowed"
        assert (await got(proxy, request("GET", "/own/calls/1", page)))["access-control-allow-origin"] == "*"


async def test_a_worker_is_asked_for_it_by_its_path() -> None:
    async with Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy:
        door = proxy.server.edges[0].door

        assert door.own("GET", "/own/calls/1").handle is last
        assert door.own("HEAD", "/own/calls/1").handle is last
        with pytest.raises(RouteNotFound):
            door.own("POST", "/own/calls/1")
        with pytest.raises(RouteNotFound):
            door.own("GET", "/own/calls/")
