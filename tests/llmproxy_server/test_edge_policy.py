"""Who may call the edge: Host, Origin, local callers, our own endpoints."""

import asyncio

import pytest

from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import Forbidden
from tests.llmproxy_server.edging import HELLO, Answer, Serves, answer, ask, post, request
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.upstream import Upstream, completion, reply

pytestmark = pytest.mark.usefixtures("both_ways")

NOWHERE = "http://127.0.0.1:9/v1"
PLAIN = reply(completion("Hello"))
PAGE = "https://app.example.com"


async def got(proxy: Proxy, data: bytes, *, method: str = "POST") -> Answer:
    """The answer to *data* on a connection of its own."""
    async with connected(proxy.port) as client:
        return await ask(client, data, method=method)


# -- after others ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "now", "status"),
    [
        (b"Host: localhost", b"Host: evil.example", {421}),
        (b"Host: localhost", b"Host: localhost\r\nHost: localhost", {400}),
        (b"Host: localhost\r\n", b"", {400}),
        (b"Host: localhost", b"Host: localhost\r\nOrigin: https://app.example.com", {403}),
        (b"Host: localhost", b"Host: localhost\r\nExpect: magic", {417}),
        (b"Host: localhost", b"Host: localhost\r\nContent-Encoding: gzip", {415}),
        (b"Content-Type: application/json", b"Content-Type: text/plain", {415}),
        (b"Content-Type: application/json\r\n", b"", {415}),
        (b"Content-Type: application/json", b"Content-Type: application/json\r\nContent-Type: text/plain", {400, 415}),
        (b"/v1/chat/completions ", b"/v1/chat/completions#x ", {400}),
        (b"/v1/chat/completions ", b"/v1//chat/completions ", {400}),
        (b"/v1/chat/completions ", b"/v2/chat/completions ", {404}),
        (b"POST ", b"GET ", {405}),
    ],
)
async def test_a_head_that_is_wrong_in_one_thing_is_refused_after_many_that_were_right(
    was: bytes, now: bytes, status: set[int]
) -> None:
    """What was found in order is remembered by all that is looked at."""
    async with Upstream(PLAIN) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        right = [await got(proxy, post()) for _ in range(3)]
        assert was in post()

        refused = await got(proxy, post().replace(was, now))

        assert [it.status for it in right] == [200, 200, 200]
        assert refused.status in status
        assert len(upstream.requests) == 3


# -- Host ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:3000", "localhost.", "app.localhost", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:3000"],
)
async def test_loopback_names_are_ours(host: str) -> None:
    async with Proxy(openai_at(NOWHERE)) as proxy:
        assert (await got(proxy, request("GET", "/livez", host=host))).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "10.0.0.1",
        "[::2]",
        "0.0.0.0",
        "127.0.0.1.nip.io",
        "2130706433",
    ],
)
async def test_other_names_are_not_and_nothing_is_done_for_them(host: str) -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        refused = await got(proxy, post().replace(b"localhost", host.encode()))

        assert (refused.status, refused.code) == (421, "misdirected_request")
        assert not upstream.requests


@pytest.mark.parametrize("host", ["localhost:port", "local host", "a@localhost", "localhost/x", "localhost:99999", ""])
async def test_a_malformed_host_is_a_bad_request(host: str) -> None:
    async with Proxy(openai_at(NOWHERE)) as proxy:
        assert (await got(proxy, request("GET", "/livez", host=host))).status == 400


async def test_a_request_has_exactly_one_host() -> None:
    async with Proxy(openai_at(NOWHERE)) as proxy:
        assert (await got(proxy, request("GET", "/livez", host=None))).status == 400
        assert (await got(proxy, request("GET", "/livez", "Host: localhost"))).status == 400


async def test_allowed_hosts_are_ours_too() -> None:
    mapping = with_server(openai_at(NOWHERE), allowed_hosts=["llm.example.com"])
    async with Proxy(mapping) as proxy:
        assert (await got(proxy, request("GET", "/livez", host="LLM.example.com:443"))).status == 200
        assert (await got(proxy, request("GET", "/livez", host="example.com"))).status == 421


async def test_elsewhere_than_on_loopback_any_name_leads_to_us() -> None:
    mapping = with_server(openai_at(NOWHERE), host="0.0.0.0", allow_anonymous=True)
    async with Proxy(mapping) as proxy:
        assert (await got(proxy, request("GET", "/livez", host="llm.example.com"))).status == 200
        assert (await got(proxy, request("GET", "/livez", host="a b"))).status == 400


# -- Origin --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000", "null", "https://APP.example.com", ""])
async def test_no_page_may_call_unless_it_is_listed(origin: str) -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        refused = await got(proxy, post(HELLO, "/v1/chat/completions", f"Origin: {origin}"))

        assert (refused.status, refused.code) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in refused
        assert not upstream.requests


async def test_a_listed_page_may_call_and_read_the_answer() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), cors_allowed_origins=[PAGE])) as proxy,
    ):
        allowed = await got(proxy, post(HELLO, "/v1/chat/completions", f"Origin: {PAGE}"))
        failed = await got(proxy, post(b"{", "/v1/chat/completions", f"Origin: {PAGE}"))
        unasked = await got(proxy, post())
        other = await got(proxy, post(HELLO, "/v1/chat/completions", "Origin: https://app.example.com.evil.example"))

    for each in (allowed, failed):
        assert each["access-control-allow-origin"] == PAGE
        assert each["access-control-expose-headers"] == "*"
        assert each["vary"] == "origin"
        assert "access-control-allow-credentials" not in each
    assert (allowed.status, failed.status, unasked.status, other.status) == (200, 400, 200, 403)
    assert unasked["vary"] == "origin"


async def test_every_page_may_call_where_that_is_configured_but_none_without_a_name() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), cors_allowed_origins=["*"])) as proxy,
    ):
        allowed = await got(proxy, post(HELLO, "/v1/chat/completions", f"Origin: {PAGE}"))
        null = await got(proxy, post(HELLO, "/v1/chat/completions", "Origin: null"))
        two = await got(proxy, post(HELLO, "/v1/chat/completions", f"Origin: {PAGE}", f"Origin: {PAGE}"))

    assert allowed["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in allowed
    assert (null.status, two.status) == (403, 403)


async def test_a_preflight_allows_what_the_page_asks_for() -> None:
    async with Proxy(with_server(openai_at(NOWHERE), cors_allowed_origins=[PAGE])) as proxy:
        asked = request(
            "OPTIONS",
            "/v1/chat/completions",
            f"Origin: {PAGE}",
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization, content-type,x-stainless-os",
        )
        allowed = await got(proxy, asked)

    assert (allowed.status, allowed.body) == (204, b"")
    assert allowed["access-control-allow-origin"] == PAGE
    assert allowed["access-control-allow-methods"] == "POST"
    assert allowed["access-control-allow-headers"] == "authorization, content-type,x-stainless-os"
    assert allowed["access-control-max-age"] == "600"
    assert allowed["vary"] == "origin"
    assert "content-length" not in allowed


async def test_a_preflight_of_another_page_is_refused_and_hostile_names_are_not_echoed() -> None:
    async with Proxy(with_server(openai_at(NOWHERE), cors_allowed_origins=[PAGE])) as proxy:
        method = "Access-Control-Request-Method: POST"
        other = await got(proxy, request("OPTIONS", "/v1/x", "Origin: https://evil.example", method))
        hostile = await got(
            proxy,
            request("OPTIONS", "/v1/x", f"Origin: {PAGE}", method, "Access-Control-Request-Headers: <script>, a b"),
        )
        plain = await got(proxy, request("OPTIONS", "/v1/chat/completions"))

    assert other.status == 403
    assert hostile.status == 204
    assert "access-control-allow-headers" not in hostile
    assert plain.status == 405


# -- our own endpoints ---------------------------------------------------------------------------------------------


async def show(asked: EndpointRequest) -> EndpointReply:
    return EndpointReply(
        asked.method.encode() + b" " + asked.query.encode() + b" " + asked.body, content_type="text/plain"
    )


async def refuse(asked: EndpointRequest) -> EndpointReply:
    raise Forbidden("Not you")


async def break_down(asked: EndpointRequest) -> EndpointReply:
    raise ZeroDivisionError


PLUGIN = Serves(
    Endpoint("GET", "/own/show", show),
    Endpoint("POST", "/own/change", show, local_only=True),
    Endpoint("GET", "/own/refuse", refuse),
    Endpoint("GET", "/own/broken", break_down),
    Endpoint("GET", "/v1/covered", show),
)


async def test_an_endpoint_answers_at_its_exact_path_with_the_secure_headers() -> None:
    async with Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy:
        found = await got(proxy, request("GET", "/own/show?a=b"))

        assert (found.status, found.body, found["content-type"]) == (200, b"GET a=b ", "text/plain")
        assert found["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert found["x-content-type-options"] == "nosniff"
        assert found["x-frame-options"] == "DENY"
        assert found["referrer-policy"] == "no-referrer"
        assert found["cross-origin-resource-policy"] == "same-origin"
        assert (await got(proxy, request("GET", "/own/show/"))).status == 404
        assert (await got(proxy, request("GET", "/own/SHOW"))).status == 404
        assert (await got(proxy, request("GET", "/v1/covered"))).body == b"GET  "


async def test_what_an_endpoint_raises_is_an_error_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    async with Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy:
        refused, broken = (
            await got(proxy, request("GET", "/own/refuse")),
            await got(proxy, request("GET", "/own/broken")),
        )

        assert (refused.status, refused.code) == (403, "forbidden")
        assert (broken.status, broken.code) == (500, "internal_error")
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=1.2.3.4",
        "Via: 1.1 x",
        "X-Real-IP: ::1",
        "X-Forwarded-Host: x",
        "CF-Connecting-IP: 1.2.3.4",
    ],
)
async def test_what_changes_something_is_for_this_machine_and_not_through_a_proxy(header: str) -> None:
    async with Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy:
        here = await got(proxy, post({"a": 1}, "/own/change"))
        forwarded = await got(proxy, post({"a": 1}, "/own/change", header))

        assert (here.status, here.body) == (200, b'POST  {"a": 1}')
        assert (forwarded.status, forwarded.code) == (403, "local_only")


async def test_a_name_that_a_stranger_pointed_at_this_machine_leads_to_nothing_local() -> None:
    """Its page would be of our origin, so that no Origin comes with its GETs."""
    everywhere = with_server(openai_at(NOWHERE), host="0.0.0.0", allow_anonymous=True, allowed_hosts=["gate.example"])
    plugin = Serves(Endpoint("GET", "/own/calls", show, local_only=True))
    async with Proxy(everywhere, plugins=[plugin]) as proxy:
        answers = {
            host: (await got(proxy, request("GET", "/own/calls", host=host))).status
            for host in ("localhost", "127.0.0.1", "gate.example", "stranger.example")
        }

        assert answers == {"localhost": 200, "127.0.0.1": 200, "gate.example": 200, "stranger.example": 403}


async def test_pages_may_call_a_local_endpoint_only_if_we_served_them() -> None:
    """Whatever `cors_allowed_origins` says; and not a page whose own name was made to point here."""
    async with Proxy(with_server(openai_at(NOWHERE), cors_allowed_origins=["*"]), plugins=[PLUGIN]) as proxy:
        host = f"localhost:{proxy.port}"

        async def change(origin: str) -> int:
            data = post({}, "/own/change", f"Origin: {origin}").replace(b"Host: localhost", f"Host: {host}".encode())
            return (await got(proxy, data)).status

        assert await change(f"http://{host}") == 200
        assert await change(f"https://{host}") == 403
        assert await change("http://localhost:1") == 403
        assert await change(PAGE) == 403
        assert (await got(proxy, request("GET", "/own/show", f"Origin: {PAGE}"))).status == 200


async def test_our_own_page_is_no_origin_for_routes() -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        host = f"localhost:{proxy.port}"
        data = post(HELLO, "/v1/chat/completions", f"Origin: http://{host}").replace(
            b"Host: localhost", f"Host: {host}".encode()
        )

        assert (await got(proxy, data)).status == 403


async def test_own_endpoints_can_be_switched_off() -> None:
    async with Proxy(with_server(openai_at(NOWHERE), own_endpoints=False), plugins=[PLUGIN]) as proxy:
        assert (await got(proxy, request("GET", "/health"))).status == 404
        assert proxy.server.own_url is None


async def test_own_endpoints_can_have_an_address_of_their_own() -> None:
    async with Upstream(PLAIN) as upstream:
        mapping = with_server(openai_at(upstream.base_url), own_endpoints="127.0.0.1:0")
        async with Proxy(mapping, plugins=[PLUGIN]) as proxy:
            assert (await got(proxy, request("GET", "/health"))).status == 404
            assert (await got(proxy, post())).status == 200
            assert proxy.server.own_url is not None
            async with connected(int(proxy.server.own_url.rpartition(":")[2])) as client:
                assert (await ask(client, request("GET", "/health"))).status == 200
                assert (await ask(client, post())).status == 404


async def test_an_endpoints_body_is_bounded_and_json() -> None:
    async with Proxy(with_server(openai_at(NOWHERE), max_body_bytes=10), plugins=[PLUGIN]) as proxy:
        assert (await got(proxy, post(b"x" * 11, "/own/change"))).status == 413
        assert (await got(proxy, post(b"a=b", "/own/change", type="application/x-www-form-urlencoded"))).status == 415


async def test_two_requests_at_once_are_answered_each_on_its_own() -> None:
    async with (
        Proxy(openai_at(NOWHERE), plugins=[PLUGIN]) as proxy,
        connected(proxy.port) as one,
        connected(proxy.port) as two,
    ):
        one.send(request("GET", "/own/show?1"))
        two.send(request("GET", "/own/show?2"))

        both = await asyncio.gather(answer(one), answer(two))

        assert [each.body for each in both] == [b"GET 1 ", b"GET 2 "]
