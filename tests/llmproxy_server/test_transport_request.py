"""Heads of requests to upstreams: what we add, and what ends no line."""

import pytest

from llmproxy_core.llm import FixedHeaders, UpstreamRequest
from llmproxy_server.transport_request import request_head

BEGIN = " / HTTP/1.1\r\nhost: h\r\n"


def lines(request: UpstreamRequest) -> list[str]:
    return request_head(request, BEGIN).decode().split("\r\n")


@pytest.mark.parametrize("name", ["user-agent", "User-Agent", "USER-AGENT"])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_default_is_left_out_where_it_is_given(name: str, fixed: bool) -> None:
    given = [(name.lower() if fixed else name, "x/1")]
    request = UpstreamRequest("GET", "", [] if fixed else given, None, FixedHeaders(given if fixed else ()))

    for _ in range(2):
        agents = [line for line in lines(request) if line.lower().startswith("user-agent:")]
        assert [line.partition(": ")[2] for line in agents] == ["x/1"]
        assert lines(request).count("accept-encoding: identity") == 1


def test_what_one_call_gives_is_not_left_out_of_the_next() -> None:
    fixed = FixedHeaders([("a", "b")])
    plain = UpstreamRequest("GET", "", [], None, fixed)
    before = lines(plain)

    assert lines(UpstreamRequest("GET", "", [("User-Agent", "x/1")], None, fixed)) != before
    assert lines(plain) == before


@pytest.mark.parametrize("bad", ["a\r\nb: c", "a\nb: c", "a\rb", "a\0b"])
@pytest.mark.parametrize("place", ["name", "value"])
def test_a_field_that_would_end_its_line_is_not_sent(bad: str, place: str) -> None:
    field = (bad, "x") if place == "name" else ("x", bad)

    with pytest.raises(ValueError, match="line break or a NUL"):
        request_head(UpstreamRequest("POST", "", [("a", "b"), field], b"{}"), BEGIN)


@pytest.mark.parametrize("method", ["", "A B", "GET\r\nx: y", "GET /x HTTP/1.1\r\n\r\nGET", "ä", "GET\0"])
def test_what_is_no_method_is_not_sent(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        request_head(UpstreamRequest(method, "", []), BEGIN)


def test_a_method_of_any_name_is_sent() -> None:
    assert lines(UpstreamRequest("M-SEARCH", "", [], b"1"))[0] == "M-SEARCH / HTTP/1.1"
