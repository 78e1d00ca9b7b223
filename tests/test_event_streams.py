"""Event streams as upstreams really send them, to clients that nobody, somebody, or everybody watches for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmproxy_core import End, Exchange, Handler, Response
from llmproxy_core.text import Replace
from tests.exact import Seen, post
from tests.llmproxy_server.edging import Processing, processed
from tests.proxy import Proxy, openai_at
from tests.upstream import Chunk, Head, Step, Upstream, chat_chunk, pieces, usage_chunk
from tests.upstream import End as Complete


def text(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


A, B, USAGE, DONE = text(chat_chunk("my se")), text(chat_chunk("cret", finish="stop")), text(usage_chunk()), b"[DONE]"


def events(*payloads: bytes, line_end: bytes = b"\n", before: bytes = b"data: ") -> bytes:
    return b"".join(before + data + line_end + line_end for data in payloads)


PLAIN = events(A, B, DONE)
IN_LINES = A.replace(b',"choices"', b',\ndata: "choices"')

STREAMS = [
    pytest.param(events(A, B, USAGE, DONE), PLAIN, id="LF"),
    pytest.param(events(A, B, USAGE, DONE, line_end=b"\r\n"), PLAIN.replace(b"\n", b"\r\n"), id="CRLF"),
    pytest.param(events(A, B, USAGE, DONE, line_end=b"\r"), PLAIN.replace(b"\n", b"\r"), id="CR"),
    pytest.param(
        events(A, B, USAGE, DONE, before=b"data:"), events(A, B, DONE, before=b"data:"), id="no space after the colon"
    ),
    pytest.param(b"\xef\xbb\xbf" + events(A, B, USAGE, DONE), b"\xef\xbb\xbf" + PLAIN, id="BOM"),
    pytest.param(
        b": hi\n\n:\n\n" + events(A) + b": x\n" + events(B, USAGE) + b":still here\n\n" + events(DONE),
        b": hi\n\n:\n\n" + events(A) + b": x\n" + events(B) + b":still here\n\n" + events(DONE),
        id="comments",
    ),
    pytest.param(
        events(IN_LINES, B, USAGE, DONE, before=b"event: message\nid: 7\ndata: "),
        events(IN_LINES, B, DONE, before=b"event: message\nid: 7\ndata: "),
        id="names, ids and data of several lines",
    ),
    pytest.param(events(A, B, USAGE) + b"data: [DONE]", PLAIN, id="no final line end"),
    pytest.param(events(A, B, USAGE) + b"data: [DONE]\n", PLAIN, id="no final blank line"),
    pytest.param(
        b"event: ping\n\nid: 1\n\nretry: 5\n\ndata:\n\n" + events(A) + b"event: x\ndata: \n\n" + events(B, USAGE, DONE),
        PLAIN,
        id="events without data",
    ),
    pytest.param(events(A, B, USAGE, DONE) + events(A), PLAIN, id="more after the end"),
]
SPLIT = pytest.mark.parametrize("split", ["whole", "bytes"])


async def go(body: bytes, split: str, *, stream: bool = True, filtered: bool = False) -> tuple[Seen, Proxy]:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        if filtered:
            response.rewrite(lambda channel: Replace({"secret": "public"}))
        return response

    asked = text({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream})
    script: list[Step] = [Head(), *map(Chunk, pieces(body, "bytes" if split == "bytes" else "whole")), Complete()]
    async with (
        Upstream(script) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(around)]) as proxy,
    ):
        seen = await post(f"{proxy.base_url}/chat/completions", asked)
        await proxy.outcome()
        return seen, proxy


def said(body: bytes) -> str:
    """What a client reads, by the simplest reader that the standard allows."""
    lines = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found, data = "", list[bytes]()
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data and (whole := b"\n".join(data)) != DONE:
            found += json.loads(whole)["choices"][0]["delta"].get("content") or ""
        data = data if line else []
    return found


@SPLIT
@pytest.mark.parametrize(("sent", "expected"), STREAMS)
async def test_the_bytes_pass_less_what_no_client_may_see(sent: bytes, expected: bytes, split: str) -> None:
    seen, proxy = await go(sent, split)

    assert (seen.status, seen.body, seen.whole) == (200, expected, True)
    assert said(seen.body) == "my secret"
    _check_complete(proxy)


@SPLIT
@pytest.mark.parametrize(("sent", "expected"), STREAMS)
async def test_a_filter_finds_the_text_in_all_of_them(sent: bytes, expected: bytes, split: str) -> None:
    seen, proxy = await go(sent, split, filtered=True)

    assert (seen.status, seen.whole) == (200, True)
    assert said(seen.body) == "my public"
    assert seen.body.count(b"\r") == (expected.count(b"\r"))
    _check_complete(proxy)


@SPLIT
@pytest.mark.parametrize(("sent", "expected"), STREAMS)
async def test_a_client_that_wanted_one_answer_gets_it(sent: bytes, expected: bytes, split: str) -> None:
    seen, proxy = await go(sent, split, stream=False)

    answer: dict[str, Any] = json.loads(seen.body)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == said(expected) == "my secret"
    _check_complete(proxy)


def _check_complete(proxy: Proxy) -> None:
    (outcome,) = proxy.outcomes
    assert outcome.end is End.COMPLETED
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (9, 3)


async def test_a_content_type_is_read_as_the_standard_says() -> None:
    """Its letters' case means nothing, and parameters may follow."""
    asked = text({"model": "m", "messages": [], "stream": True})
    head = Head(200, {"content-type": "Text/Event-Stream;charset=UTF-8"})
    async with (
        Upstream([head, Chunk(events(A, B, DONE)), Complete()]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
    ):
        seen = await post(f"{proxy.base_url}/chat/completions", asked)

    assert seen.body == PLAIN


@pytest.mark.parametrize("filtered", [False, True], ids=["copied", "filtered"])
async def test_an_event_with_an_image_in_it_passes(filtered: bool) -> None:
    image: Any = chat_chunk("my secret")
    image["choices"][0]["delta"]["images"] = ["data:image/png;base64," + "QUJD" * 500_000]

    seen, proxy = await go(events(text(image), B, USAGE, DONE), "whole", filtered=filtered)

    assert (seen.status, seen.whole) == (200, True)
    assert b"QUJD" * 500_000 in seen.body
    _check_complete(proxy)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("wants_stream", [False, True])
async def test_what_is_gathered_of_a_stream_has_a_bound(path: str, wants_stream: bool) -> None:
    """A plain client gets the whole of it; one of Responses has all of it repeated at the end."""
    long = [text(chat_chunk("x" * 500)) for _ in range(100)]
    body = events(*long, USAGE, DONE)
    question: dict[str, Any] = {"model": "m", "stream": wants_stream}
    question |= {"input": "hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "hi"}]}
    async with Upstream(
        [Head(200, {"content-type": "text/event-stream"}), *map(Chunk, pieces(body, 1000)), Complete()]
    ) as upstream:
        mapping = openai_at(upstream.base_url, max_response_bytes=4096)
        async with Proxy(mapping) as proxy:
            seen = await post(f"{proxy.url}{path}", json.dumps(question).encode())
            outcome = await proxy.outcome()

    copied = wants_stream and path == "/v1/chat/completions"
    assert outcome.end is (End.COMPLETED if copied else End.FAILED)
    assert (b"longer than 16384 bytes (max_response_bytes)" in seen.body) is not copied
    assert seen.status == (200 if wants_stream else 502)
