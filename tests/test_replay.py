"""
Recorded traffic of real providers through the proxy: the client gets the upstream's bytes.

All but the event that tells the usage, where the client did not ask for it; whole, byte by byte, and cut at awkward
places. And when the upstream breaks off at any place, nobody can take the answer for complete.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from llmproxy_core import Api, End, UsageSource
from llmproxy_core.chat import ChatReply
from llmproxy_core.reply_events import Assembler
from llmproxy_openai import OpenAIDialect
from tests.exact import Seen, post
from tests.proxy import Proxy
from tests.recordings import Recording, recording, recordings, without_usage_chunk
from tests.upstream import Chunk, Cut, Head, Reset, Stall, Step, Upstream, replay
from tests.upstream import End as Complete

PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
OUR_KEY_REFUSED = (401, 402, 403)
"""These become 502 with our own text: they are about the proxy's key, not the caller's request."""

RECORDINGS = [
    it
    for it in recordings()
    if it.provider in ("openai", "compatible") and it.protocol in PATHS and it.response_status not in OUR_KEY_REFUSED
]
STREAMS = [it for it in RECORDINGS if it.is_event_stream]
HELLO = recording("chat-stream-chat-streaming-detailed-usage-0")
EVENT_STREAM = [("content-type", "text/event-stream")]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[Proxy]:
    llm = {"provider": "openai", "base_url": upstream.base_url, "timeouts": {"idle_s": 0.2, "first_byte_s": 0.5}}
    mapping = {"llm": {"fake": llm}, "route": [{"path_prefix": "/v1", "target_llm": "fake"}]}
    async with Proxy(mapping) as running:
        yield running


def expected(it: Recording) -> bytes:
    """What the client of *it* is to get."""
    if not it.is_event_stream or it.wants_usage:
        return it.response_body
    return without_usage_chunk(it.response_body)


def awkward(body: bytes) -> list[int]:
    """Places inside line ends, `data:`, UTF-8 characters, escapes, numbers and the terminal event."""
    places: list[int] = []
    for mark in (b"\n\n", b"\r\n", b"data:", b"\\", b"usage", b"[DONE]", b'":'):
        start = -1
        while (start := body.find(mark, start + 1)) >= 0:
            places.append(start + 1)
    places += [index for index, byte in enumerate(body) if byte >= 0x80]
    return places


@pytest.mark.parametrize("it", RECORDINGS, ids=str)
async def test_the_client_gets_the_bytes_of_the_upstream(it: Recording, upstream: Upstream, proxy: Proxy) -> None:
    upstream.then(replay(it))

    seen = await post(f"{proxy.url}/v1{PATHS[it.protocol]}", it.request_body)

    assert seen.status == it.response_status
    assert seen.body == expected(it)
    assert seen.whole


@pytest.mark.parametrize("it", RECORDINGS, ids=str)
@pytest.mark.parametrize("split", ["bytes", "awkward"])
async def test_no_split_of_the_upstreams_bytes_changes_them(
    it: Recording, split: str, upstream: Upstream, proxy: Proxy
) -> None:
    upstream.then(replay(it, "bytes" if split == "bytes" else awkward(it.response_body)))

    seen = await post(f"{proxy.url}/v1{PATHS[it.protocol]}", it.request_body)

    assert seen.body == expected(it)
    assert seen.whole


@pytest.mark.parametrize("it", RECORDINGS, ids=str)
async def test_the_upstream_gets_the_bytes_of_the_client(it: Recording, upstream: Upstream, proxy: Proxy) -> None:
    """All but the question for the usage of a stream, which is added behind them."""
    upstream.then(replay(it))

    await post(f"{proxy.url}/v1{PATHS[it.protocol]}", it.request_body)

    sent = upstream.requests[0].body
    if json.loads(it.request_body).get("stream") and not it.wants_usage:
        asked = json.loads(sent)
        assert asked.pop("stream_options")["include_usage"] is True
        assert asked == json.loads(it.request_body)
        assert sent.startswith(it.request_body[:-1])
    else:
        assert sent == it.request_body


@pytest.mark.parametrize("it", STREAMS, ids=str)
async def test_the_usage_of_a_stream_is_learned_whether_the_client_asked_or_not(
    it: Recording, upstream: Upstream, proxy: Proxy
) -> None:
    reported = [json.loads(line[5:]) for line in it.response_body.splitlines() if b'"prompt_tokens"' in line]
    upstream.then(replay(it))

    await post(f"{proxy.url}/v1{PATHS[it.protocol]}", it.request_body)

    usage = proxy.outcomes[0].usage
    assert usage is not None
    if not reported:
        assert usage.source is UsageSource.ESTIMATED
    else:
        assert usage.source is UsageSource.REPORTED
        assert usage.input_tokens == reported[-1]["usage"]["prompt_tokens"]
        assert usage.output_tokens == reported[-1]["usage"]["completion_tokens"]


# -- every k-th byte -------------------------------------------------------------------------------------------------

TERMINAL = HELLO.response_body.index(b"data: [DONE]")
BROKEN_OFF = range(0, TERMINAL + len(b"data: [DON"), 61)
"""Up to the place from which on the terminal event can be told."""


def events(body: bytes) -> bytes:
    """The whole events that *body* begins with, less the one that tells the usage."""
    whole = body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b""
    return whole if HELLO.wants_usage else without_usage_chunk(whole)


@pytest.mark.parametrize("at", BROKEN_OFF)
@pytest.mark.parametrize(
    ("how", "code"),
    [
        pytest.param([Cut()], "upstream_cut", id="cut"),
        pytest.param([Reset()], "upstream_cut", id="reset"),
        pytest.param([Complete()], "upstream_cut", id="ended without the terminal event"),
        pytest.param([Chunk(b'\n\ndata: {"id": nonsense\n\n'), Complete()], "upstream_garbage", id="garbage"),
    ],
)
async def test_a_stream_that_breaks_off_ends_with_an_error_and_never_looks_complete(
    at: int, how: list[Step], code: str, upstream: Upstream, proxy: Proxy
) -> None:
    begun = HELLO.response_body[:at]
    upstream.then([Head(200, EVENT_STREAM), *([Chunk(begun)] if begun else []), *how])

    seen = await post(f"{proxy.url}/v1/chat/completions", HELLO.request_body)

    _check_broken_off(seen, events(begun), code, lossy=isinstance(how[0], Reset))
    assert proxy.outcomes[0].end is End.FAILED


def _check_broken_off(seen: Seen, whole_events: bytes, code: str, *, lossy: bool = False) -> None:
    """
    *seen* is an error if nothing could be sent, else the *whole_events*, one error event and no proper end.

    *lossy*: a reset overtook the bytes, and the kernel may have thrown them away.
    """
    assert b"[DONE]" not in seen.body
    if seen.status != 200:
        assert not whole_events or lossy
        assert json.loads(seen.body)["error"]["code"] == code
        return
    assert not seen.whole
    told = seen.body.rindex(b"data:")
    assert json.loads(seen.body[told + 5 :])["error"]["code"] == code
    assert whole_events.startswith(seen.body[:told]) if lossy else seen.body.startswith(whole_events)


@pytest.mark.parametrize("at", [0, 1, 300, 1000, TERMINAL])
async def test_a_stream_that_stalls_ends_with_an_error_at_the_idle_time_out(
    at: int, upstream: Upstream, proxy: Proxy
) -> None:
    begun = HELLO.response_body[:at]
    upstream.then([Head(200, EVENT_STREAM), *([Chunk(begun)] if begun else []), Stall()])

    seen = await post(f"{proxy.url}/v1/chat/completions", HELLO.request_body)

    _check_broken_off(seen, events(begun), "upstream_timeout_first_byte" if at == 0 else "upstream_timeout_idle")


# -- the same answer in its other shape ------------------------------------------------------------------------------

DIALECT = OpenAIDialect()
APIS = {api.name.removeprefix("openai."): api for api in DIALECT.apis}
ANSWERS = [it for it in RECORDINGS if it.protocol in ("chat", "completions") and it.response_status == 200]


@pytest.mark.parametrize("it", ANSWERS, ids=str)
async def test_an_answer_means_the_same_in_the_shape_that_the_upstream_did_not_choose(
    it: Recording, upstream: Upstream, proxy: Proxy
) -> None:
    """A whole answer goes to a client that asked for a stream, a stream to one that asked for a whole answer."""
    upstream.then(replay(it))
    asked = json.loads(it.request_body) | {"stream": not it.is_event_stream}
    asked["stream_options"] = None if it.is_event_stream else {"include_usage": True}

    seen = await post(f"{proxy.url}/v1{PATHS[it.protocol]}", json.dumps(asked).encode())

    api = APIS[it.protocol]
    if it.is_event_stream:
        assert _meaning(DIALECT.read_reply(api, seen.body)) == _meaning(_assembled(api, it.response_body))
    else:
        assert _meaning(_assembled(api, seen.body)) == _meaning(DIALECT.read_reply(api, it.response_body))


def _assembled(api: Api, stream: bytes) -> ChatReply:
    assembler, reader = Assembler(), DIALECT.reader(api)
    for frame in [*reader.feed(stream), *reader.end()]:
        assembler.feed(frame.events)
    return assembler.reply()


def _meaning(reply: ChatReply) -> object:
    """All of *reply* but what only its own shape has: bytes, members that nobody knows, the spelling of a word."""
    choices = [
        (choice.index, choice.content, choice.finish and choice.finish.reason, json.loads(choice.logprobs or b"null"))
        for choice in reply.choices
    ]
    return reply.id, reply.model, reply.created, choices, reply.usage, reply.service_tier, reply.fingerprint
