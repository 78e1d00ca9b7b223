"""The edge as a client sees it: ids, versions, methods, bodies, errors."""

import asyncio
import gzip
import json

import pytest

from llmproxy_core.errors import RateLimited
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from tests.llmproxy_server.edging import HELLO, Processing, answer, ask, closed, many, post, processed, request
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.upstream import Call, Raw, Upstream, completion, error, reply

pytestmark = pytest.mark.usefixtures("both_ways")

OPAQUE = {"operations": ["chat", "models", "opaque"]}
PLAIN = reply(completion("Hello"))


# -- request ids ---------------------------------------------------------------------------------------------------


async def test_a_harmless_request_id_is_kept_and_the_upstreams_own_is_told_beside_it() -> None:
    script = reply(completion("Hello"), headers={"x-request-id": "req_upstream"})
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(HELLO, "/v1/chat/completions", "X-Request-Id: my-id_1.2"))

        assert got["x-request-id"] == "my-id_1.2"
        assert got["x-upstream-request-id"] == "req_upstream"
        assert proxy.exchanges[0].id == "my-id_1.2"


@pytest.mark.parametrize("given", ["a" * 129, "a b", "a\tb", "<script>", "ü", "a;b", ""])
async def test_a_request_id_that_could_do_harm_is_replaced(given: str) -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(HELLO, "/v1/chat/completions", f"X-Request-Id: {given}"))

        assert got["x-request-id"] != given
        assert len(got["x-request-id"]) == 32


async def test_every_answer_has_a_request_id_of_its_own() -> None:
    async with Upstream(PLAIN) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        ids = []
        for data in (post(), request("GET", "/health"), request("GET", "/nowhere"), b"nonsense\r\n\r\n"):
            async with connected(proxy.port) as client:
                ids.append((await ask(client, data))["x-request-id"])

        assert len(set(ids)) == 4


# -- versions, methods, connections --------------------------------------------------------------------------------


async def test_a_connection_carries_many_requests_also_pipelined() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post() + post() + request("GET", "/livez"))

        statuses = [(await answer(client)).status for _ in range(3)]

        assert statuses == [200, 200, 200]
        assert "connection" not in await ask(client, request("GET", "/livez"))


async def test_http_1_0_is_served_and_its_connection_closed() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, request("GET", "/livez", host=None, version="HTTP/1.0"))

        assert (got.status, got["connection"]) == (200, "close")
        assert await closed(client) == b""


async def test_http_1_0_can_ask_for_its_connection_to_be_kept() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        kept = request("GET", "/livez", "Connection: keep-alive", version="HTTP/1.0")

        assert (await ask(client, kept))["connection"] == "keep-alive"
        assert (await ask(client, kept)).status == 200


async def test_http_0_9_is_refused() -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy, connected(proxy.port) as client:
        got = await ask(client, b"GET /livez\r\n\r\n")

        assert got.status in (400, 505)
        assert got["connection"] == "close"
        assert "error" in got.json
        assert await closed(client) == b""


@pytest.mark.parametrize("path", ["/livez", "/v1/models"])
async def test_head_is_get_without_the_body(path: str) -> None:
    mapping = openai_at("http://127.0.0.1:9/v1", models=["a", "b"])
    async with Proxy(mapping) as proxy, connected(proxy.port) as client:
        whole = await ask(client, request("GET", path))
        got = await ask(client, request("HEAD", path), method="HEAD")

        assert got.status == 200
        assert got["content-length"] == whole["content-length"] == str(len(whole.body))
        assert (await ask(client, request("GET", path))).body == whole.body  # nothing of a body came between


async def test_a_wrong_method_is_told_the_right_ones() -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, connected(proxy.port) as client:
        chat = await ask(client, request("GET", "/v1/chat/completions"))
        own = await ask(client, request("DELETE", "/health"))

        assert (chat.status, chat["allow"]) == (405, "POST")
        assert (own.status, own["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("target", ["http://localhost/v1/models", "*", "/v1/models#x", "/v1/ü", "/v1//models"])
async def test_a_target_that_is_no_plain_path_is_refused(target: str) -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, connected(proxy.port) as client:
        assert (await ask(client, request("GET", target))).status == 400


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        whole = post(HELLO, "/v1/chat/completions", "Expect: 100-continue")
        before, _, body = whole.partition(b"\r\n\r\n")
        client.send(before + b"\r\n\r\n")

        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await ask(client, body)).status == 200


async def test_a_client_that_waits_for_100_continue_is_refused_before_it_sends() -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1", route={"max_body_bytes": 10})) as proxy:
        async with connected(proxy.port) as client:
            got = await ask(client, post(HELLO, "/v1/chat/completions", "Expect: 100-continue").partition(b"{")[0])

            assert (got.status, got["connection"]) == (413, "close")
        async with connected(proxy.port) as client:
            assert (await ask(client, request("GET", "/livez", "Expect: miracles"))).status == 417


# -- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "application/jsonx"],
)
async def test_a_known_operation_takes_json_only(content_type: str) -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy, connected(proxy.port) as client:
        got = await ask(client, post(HELLO, type=content_type))

        assert (got.status, got.code) == (415, "unsupported_media_type")
        assert not upstream.requests


@pytest.mark.parametrize(
    "content_type", ["application/json;charset=UTF-8", "Application/JSON", 'application/json; charset="utf-8"; x=y']
)
async def test_parameters_of_the_content_type_are_allowed(content_type: str) -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        assert (await ask(client, post(HELLO, type=content_type))).status == 200


async def test_a_compressed_body_is_refused_before_it_is_looked_at() -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy, connected(proxy.port) as client:
        packed = gzip.compress(json.dumps(HELLO).encode())

        got = await ask(client, post(packed, "/v1/chat/completions", "Content-Encoding: gzip"))

        assert got.status == 415
        assert not upstream.requests


async def test_identity_is_no_encoding() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        assert (await ask(client, post(HELLO, "/v1/chat/completions", "Content-Encoding: identity"))).status == 200


async def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes() -> None:
    async with (
        Upstream() as upstream,
        Proxy(openai_at(upstream.base_url, route={"max_body_bytes": 1000})) as proxy,
        connected(proxy.port) as client,
    ):
        declared = request(
            "POST", "/v1/chat/completions", "Content-Type: application/json", "Content-Length: 1099511627776"
        )

        got = await ask(client, declared)

        assert (got.status, got.code, got["connection"]) == (413, "payload_too_large", "close")
        assert not upstream.requests


async def test_a_long_body_that_comes_in_one_burst_with_its_head_is_no_long_head() -> None:
    long = {**HELLO, "messages": [{"role": "user", "content": "x" * 2_000_000}]}
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        for _ in range(3):
            assert (await ask(client, post(long))).status == 200

        assert [len(each.body) > 2_000_000 for each in upstream.requests] == [True] * 3


async def test_a_chunked_body_is_counted() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url, route={"max_body_bytes": 1000})) as proxy,
    ):
        chunked = request(
            "POST", "/v1/chat/completions", "Content-Type: application/json", "Transfer-Encoding: chunked"
        )
        async with connected(proxy.port) as client:
            client.send(chunked)
            for _ in range(4):
                client.send(b"190\r\n" + b" " * 400 + b"\r\n")

            got = await answer(client)

            assert (got.status, got["connection"]) == (413, "close")
        async with connected(proxy.port) as client:
            data = json.dumps(HELLO).encode()

            got = await ask(client, chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

            assert (got.status, len(upstream.requests)) == (200, 1)
            assert upstream.requests[0].body == data


async def test_a_body_that_breaks_its_framing_is_a_bad_request() -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy, connected(proxy.port) as client:
        client.send(
            request("POST", "/v1/chat/completions", "Content-Type: application/json", "Transfer-Encoding: chunked")
        )
        client.send(b"5\r\n12345\r\n")
        await asyncio.sleep(0)
        client.send(b"zz\r\n")

        got = await answer(client)

        assert (got.status, got["connection"]) == (400, "close")
        assert await closed(client) == b""
        assert not upstream.requests


async def test_an_operation_without_a_body_takes_none() -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1", models=["a"])) as proxy, connected(proxy.port) as client:
        got = await ask(client, request("GET", "/v1/models", "Content-Length: 2") + b"{}")

        assert got.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"m","model":"n"}', b'{"a":NaN}', b'{"a":"\\ud800"}'])
async def test_hostile_json_is_a_bad_request(body: bytes) -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy, connected(proxy.port) as client:
        got = await ask(client, post(body))

        assert got.status == 400
        assert not upstream.requests
        assert (await ask(client, request("GET", "/livez"))).status == 200  # the body was read: the connection is kept


# -- opaque --------------------------------------------------------------------------------------------------------


async def test_an_opaque_call_passes_both_ways_as_it_is() -> None:
    packed = gzip.compress(b"packed")
    script = reply(
        packed, 206, {"content-encoding": "gzip", "content-type": "audio/ogg", "content-range": "bytes 0-9/99"}
    )
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url, route=OPAQUE)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(packed, "/v1/audio?x=1", "Content-Encoding: gzip", type="audio/wav"))

        assert (got.status, got.body) == (206, packed)
        assert (got["content-encoding"], got["content-type"]) == ("gzip", "audio/ogg")
        asked = upstream.requests[0]
        assert (asked.method, asked.target, asked.body) == ("POST", "/v1/audio?x=1", packed)
        assert (asked.header("content-encoding"), asked.header("content-type")) == ("gzip", "audio/wav")
        assert (await proxy.outcome()).end is End.COMPLETED


async def test_an_opaque_body_is_bounded_by_its_routes_own_limit_alone() -> None:
    async with Upstream(reply(b"{}")) as upstream:
        mapping = with_server(openai_at(upstream.base_url, route=OPAQUE), max_body_bytes=10)
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            assert (await ask(client, post(b"x" * 100_000, "/v1/files"))).status == 200
        mapping = openai_at(upstream.base_url, route={**OPAQUE, "max_body_bytes": 10})
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            assert (await ask(client, post(b"x" * 11, "/v1/files"))).status == 413
        assert len(upstream.requests) == 1


async def test_an_opaque_body_of_unknown_length_is_cut_off_where_it_passes_the_limit() -> None:
    async with Upstream(reply(b"{}")) as upstream:
        mapping = openai_at(upstream.base_url, route={**OPAQUE, "max_body_bytes": 10})
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            client.send(request("POST", "/v1/files", "Transfer-Encoding: chunked") + b"5\r\n12345\r\n")
            client.send(b"6\r\n123456\r\n")

            got = await answer(client)

            assert (got.status, got.code) == (413, "payload_too_large")
            assert not upstream.requests  # never complete
            assert (await proxy.outcome()).end is End.REFUSED


async def test_a_head_of_an_opaque_path_goes_upstream_as_it_is() -> None:
    async def script(call: Call) -> None:
        await call.play(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"))
        call.ended = True

    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url, route=OPAQUE)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, request("HEAD", "/v1/files/1"), method="HEAD")

        assert got.status == 200
        assert upstream.requests[0].method == "HEAD"
        assert (await ask(client, request("GET", "/livez"))).status == 200


async def test_no_upstream_is_asked_to_show_what_it_was_sent() -> None:
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(openai_at(upstream.base_url, route=OPAQUE)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, request("TRACE", "/v1/files"))

        assert (got.status, got.code) == (501, "method_not_implemented")
        assert not upstream.requests


# -- errors --------------------------------------------------------------------------------------------------------


async def test_the_providers_error_crosses_with_its_body_and_its_advice() -> None:
    body = json.dumps(error("slow down", kind="rate_limit_error", code="rate_limit_exceeded")).encode()
    script = reply(body, 429, {"retry-after": "7", "x-ratelimit-remaining-requests": "0"})
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post())

        assert (got.status, got.body) == (429, body)
        assert got["retry-after"] == "7"
        assert got["x-ratelimit-remaining-requests"] == "0"
        assert "x-should-retry" not in got
        assert (await proxy.outcome()).end is End.FAILED


async def test_our_own_key_is_not_the_callers_affair_and_not_worth_another_try() -> None:
    script = reply(error("Incorrect API key provided: sk-proxy***"), 401)
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post())

        assert (got.status, got.code, got["x-should-retry"]) == (502, "upstream_auth", "false")
        assert b"Incorrect" not in got.body


async def test_a_refusal_tells_when_to_come_back() -> None:
    async def refuse(exchange: Exchange, call_next: Handler) -> Response:
        raise RateLimited("Not so fast", retry_after_s=1.2)

    async with (
        Proxy(processed(openai_at("http://127.0.0.1:9/v1")), plugins=[Processing(refuse)]) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post())

        assert (got.status, got["retry-after"], got["retry-after-ms"]) == (429, "2", "1200")
        assert got["x-content-type-options"] == "nosniff"
        assert got["cache-control"] == "no-store"
        assert got["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert (await proxy.outcome()).end is End.REFUSED


async def test_a_bug_is_a_500_that_tells_the_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def break_down(exchange: Exchange, call_next: Handler) -> Response:
        raise KeyError("secret detail")

    async with (
        Proxy(processed(openai_at("http://127.0.0.1:9/v1")), plugins=[Processing(break_down)]) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(HELLO, "/v1/chat/completions", "X-Request-Id: the-id"))

        assert (got.status, got["x-should-retry"]) == (500, "false")
        assert b"the-id" in got.body
        assert b"secret detail" not in got.body
        assert (await proxy.outcome()).end is End.FAILED
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "the-id" in record.getMessage()


async def test_a_cancellation_that_a_plugin_let_escape_is_a_bug_not_a_client_that_left() -> None:
    async def cancelled(exchange: Exchange, call_next: Handler) -> Response:
        raise asyncio.CancelledError

    async with (
        Proxy(processed(openai_at("http://127.0.0.1:9/v1")), plugins=[Processing(cancelled)]) as proxy,
        connected(proxy.port) as client,
    ):
        assert (await ask(client, post())).status == 500
        assert (await proxy.outcome()).end is End.FAILED


async def test_a_processor_that_cancels_the_task_of_its_own_call_fails_and_its_client_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancels(exchange: Exchange, call_next: Handler) -> Response:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await call_next(exchange)

    async with (
        Proxy(processed(openai_at("http://127.0.0.1:9/v1")), plugins=[Processing(cancels)]) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post())

        assert (got.status, got.json["error"]["code"]) == (500, "internal_error")
        assert (await proxy.outcome()).end is End.FAILED
    assert [record for record in caplog.records if record.exc_info]


async def test_headers_that_a_processor_adds_are_sent_but_none_that_breaks_the_framing() -> None:
    async def add(exchange: Exchange, call_next: Handler) -> Response:
        exchange.response_headers += [
            ("x-llmproxy-test", "yes\r\nx-injected: 1"),
            ("content-length", "3"),
            ("bad name", "x"),
            ("connection", "close"),
        ]
        return await call_next(exchange)

    async with (
        Upstream(PLAIN) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(add)]) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post())

        assert got["x-llmproxy-test"] == "yesx-injected: 1"
        assert "x-injected" not in got
        assert "connection" not in got
        assert int(got["content-length"]) == len(got.body) > 3


async def test_hop_by_hop_headers_and_credentials_of_the_client_stay_here() -> None:
    async with (
        Upstream(reply(completion("x"), headers={"keep-alive": "timeout=5", "server": "theirs"})) as upstream,
        Proxy(openai_at(upstream.base_url, token_env="KEY")) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(
            client,
            post(
                HELLO,
                "/v1/chat/completions",
                "Authorization: Bearer theirs",
                "Cookie: a=b",
                "Connection: x-private",
                "X-Private: 1",
                "TE: trailers",
                "Upgrade: h2c",
                "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        )

        asked = upstream.requests[0]
        assert asked.header("authorization") == "Bearer sk-proxy-test-0123456789"
        for name in ("cookie", "x-private", "te", "upgrade"):
            assert asked.header(name) is None
        assert asked.header("traceparent") == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert got.status == 200
        assert not {"keep-alive", "server"} & {name for name, _ in got.headers}


# -- bounds --------------------------------------------------------------------------------------------------------


async def test_calls_over_the_bound_are_told_to_come_back() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait(exchange: Exchange, call_next: Handler) -> Response:
        arrived.set()
        await go_on.wait()
        return await call_next(exchange)

    async with Upstream(PLAIN) as upstream:
        mapping = with_server(processed(openai_at(upstream.base_url)), max_in_flight=1)
        async with Proxy(mapping, plugins=[Processing(wait)]) as proxy, connected(proxy.port) as first:
            first.send(post())
            await asyncio.wait_for(arrived.wait(), 5)
            async with connected(proxy.port) as second:
                got = await ask(second, post())
                assert (got.status, got.code, got["retry-after"]) == (503, "overloaded", "1")
                assert (await ask(second, request("GET", "/health"))).json["in_flight"] == 1
            go_on.set()
            assert (await answer(first)).status == 200
            assert (await ask(first, post())).status == 200
        assert proxy.server.admission.in_flight == 0


async def test_who_announces_long_bodies_and_sends_none_keeps_nobody_out() -> None:
    async with Upstream(PLAIN) as upstream:
        mapping = with_server(openai_at(upstream.base_url), max_buffered_bytes=1000, max_in_flight=1)
        long = request("POST", "/v1/chat/completions", "Content-Type: application/json", "Content-Length: 900")
        async with Proxy(mapping) as proxy, many(proxy.port, 5) as silent, connected(proxy.port) as client:
            for each in silent:
                each.send(long)
            await until(lambda: len(proxy.server.edges[0].calls) == 5)

            assert proxy.server.admission.in_flight == 0  # a place is for work
            assert (await ask(client, post())).status == 200


async def test_bodies_held_at_once_are_bounded() -> None:
    async with Upstream(PLAIN) as upstream:
        mapping = with_server(openai_at(upstream.base_url), max_buffered_bytes=1000)
        async with Proxy(mapping) as proxy, connected(proxy.port) as first, connected(proxy.port) as second:
            long = request("POST", "/v1/chat/completions", "Content-Type: application/json", "Content-Length: 900")
            body = json.dumps(HELLO).encode().ljust(900)
            first.send(long + body[:200])
            await until(lambda: proxy.server.admission.buffered_bytes == 200)
            got = await ask(second, long)
            assert (got.status, got.code) == (503, "overloaded")
            assert (await ask(first, body[200:])).status == 200
        assert proxy.server.admission.buffered_bytes == 0
