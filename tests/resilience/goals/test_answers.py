"""Rows 30 and 31: answers that are broken or hostile, and usage that is a lie."""

from __future__ import annotations

import json

import llmproxy_anthropic
import pytest

from llmproxy_core import End as Ending
from llmproxy_core import Money, UsageSource
from llmproxy_core.wire.counts import MOST_TOKENS
from tests.answers import chat_chunk, completion, reply, sse, stream, usage_chunk
from tests.exact import Seen, post
from tests.llmproxy_server.wire.test_upstream_answer import BAD_CHUNKS, BAD_HEADS
from tests.proxy import SECRET, Proxy
from tests.resilience.flocks import ask
from tests.resilience.goals.kit import Figure, guarded, of, tries
from tests.speaking import Speaker
from tests.test_reload_under_load import resident_mb
from tests.upstream import EVENT_STREAM, Chunk, Cut, End, Flood, Head, Raw, Script, Upstream

JSON = {"content-type": "application/json"}
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
ONE = sse(chat_chunk("one"), done=False)
SOON = tries(3, initial_backoff_s=0.001)
NEVER_OPEN = {"breaker": {"min_calls": 9999}}
PIECE = b"x" * 65536
PRICES = {"*": {"input": "1.00", "output": "2.00"}}  # 1000 and 2000 nanodollars a token

# -- 30: broken and hostile answers ----------------------------------------------------------------------------------

HEADS: dict[str, Script] = {f"head, {name}": [Raw(data), Cut()] for name, data in BAD_HEADS.items()}
BODIES: dict[str, Script] = {f"chunks, {name}": [Raw(CHUNKED + data), Cut()] for name, data in BAD_CHUNKS.items()}
PLAIN: dict[str, Script] = {
    "no JSON": reply(b"<html>Welcome to nginx</html>"),
    "a page": reply(b"<html>Welcome to nginx</html>", headers={"content-type": "text/html"}),
    "nothing": reply(b""),
    "null": reply(b"null"),
    "a text": reply(b'"choices"'),
    "a list": reply(b"[]"),
    "half of an object": reply(json.dumps(completion("x")).encode()[:-9]),
    "more than an object": reply(json.dumps(completion("x")).encode() + b"}"),
    "deep": reply(b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "NUL bytes": reply(b"\0" * 1000),
    "compressed, it says": reply(json.dumps(completion("x")).encode(), headers={**JSON, "content-encoding": "gzip"}),
    "elsewhere": reply(b"", 302, {"location": "http://127.0.0.1:1/"}),
    "unchanged": [Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"), Cut()],
    "no content": [Raw(b"HTTP/1.1 204 No Content\r\n\r\n"), Cut()],
    "less than it says": [Head(200, JSON, 1000), Chunk(b'{"choices":['), Cut()],
    "an error of status 200": reply({"error": {"message": "It fell over", "type": "server_error"}}),
}
STREAMED: dict[str, Script] = {
    "a page": reply(b"<html>Welcome to nginx</html>", headers={"content-type": "text/html"}),
    "nothing": stream(done=False),
    "no event": [Head(200, EVENT_STREAM), Chunk(b"hello\n\nhello\n\n"), End()],
    "no JSON": [Head(200, EVENT_STREAM), Chunk(b"data: hello\n\n"), Chunk(b"data: [DONE]\n\n"), End()],
    "half an object": [Head(200, EVENT_STREAM), Chunk(ONE), Chunk(b'data: {"choices":[\n\n'), End()],
    "no UTF-8": [Head(200, EVENT_STREAM), Chunk(ONE), Chunk(b"data: \xff\xfe\n\n"), End()],
    "no end mark": [Head(200, EVENT_STREAM), Chunk(ONE), End()],
    "compressed, it says": [Head(200, {**EVENT_STREAM, "content-encoding": "gzip"}), Chunk(ONE), End()],
    "an error": [Head(200, EVENT_STREAM), Chunk(sse({"error": {"message": "It fell over"}})), End()],
    "an error that is a text": [Head(200, EVENT_STREAM), Chunk(ONE), Chunk(sse({"error": "It fell over"})), End()],
    "deep": [Head(200, EVENT_STREAM), Chunk(ONE), Chunk(b"data: " + b"[" * 100_000 + b"\n\n"), End()],
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_a_broken_answer_is_never_passed_as_a_success(streamed: bool, record_property: Figure) -> None:
    """Row 30: from both members it is told, from one, and before its first token, hidden; no key is in any of it."""
    answers = {**HEADS, **BODIES, **(STREAMED if streamed else PLAIN)}
    good = stream(chat_chunk("of b"), chat_chunk(None, finish="stop")) if streamed else reply(completion("of b"))
    passed: list[str] = []
    saved = 0
    async with Upstream() as a, Upstream() as b, Proxy(guarded(a, b, llm=NEVER_OPEN, retries=SOON)) as proxy:
        for name, script in answers.items():
            a.script = b.script = script
            told = await ask(proxy, stream=streamed)
            b.script = good
            second = await ask(proxy, stream=streamed)
            if of(told).kind != "told" or of(second).kind == "otherwise":
                passed.append(f"{name}: {told} {second}")
            assert SECRET.encode() not in told.body + second.body
            saved += of(second).text == "of b"
        ends = [outcome.end for outcome in proxy.outcomes[::2]]

    kind = "streams" if streamed else "plain"
    record_property(
        "row 30", f"{len(answers)} {kind}: {len(passed)} passed as success; {saved} saved by the other member"
    )
    assert passed == []
    assert set(ends) == {Ending.FAILED}
    assert saved >= len(answers) - len(STREAMED)


@pytest.mark.parametrize(("client", "kind"), [("openai", "otherwise"), ("anthropic", "told")], ids=["same", "another"])
async def test_what_stands_inside_the_braces_is_read_where_it_is_translated(client: str, kind: str) -> None:
    """Row 30: bytes that are no UTF-8, inside a plain answer, reach a client of the same protocol as they came."""
    script = reply(json.dumps(completion("?")).encode().replace(b"?", b"\xff"))
    speaker = Speaker(client)
    async with Upstream(script) as a, Upstream(script) as b:
        mapping = guarded(a, b)
        mapping["route"][0]["path_prefix"] = "/"
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy:
            path, body = speaker.path(stream=False, model="m"), speaker.body(stream=False, model="m")
            seen = await post(proxy.url + path, body, speaker.headers())

    assert _plain_kind(seen) == kind


def _plain_kind(seen: Seen) -> str:
    return "told" if seen.status >= 400 and b'"error"' in seen.body else "otherwise"


IN_BUFFERS_MB = 8
"""What the kernel's buffers hold besides, on loopback."""
ENDLESS: dict[str, tuple[bool, int, Script]] = {
    "plain": (False, 32, [Head(200, JSON), Chunk(b'{"choices":["'), Flood(PIECE)]),
    "error": (False, 1, [Head(500, JSON), Chunk(b'{"error":"'), Flood(PIECE)]),
    "event": (True, 32, [Head(), Chunk(ONE), Chunk(b'data: {"x":"'), Flood(PIECE)]),
    "line": (True, 32, [Head(), Chunk(ONE), Flood(PIECE)]),
    "comments": (True, 32, [Head(), Flood(b": " + PIECE)]),
}
"""Whether it is a stream, how many MB of it may be read, and what it says."""


@pytest.mark.parametrize("what", ENDLESS)
async def test_an_answer_without_end_is_given_up_within_bounds(what: str, record_property: Figure) -> None:
    """Row 30: told, and no more is read of it than an answer, an error or an event may be long."""
    streamed, most_mb, script = ENDLESS[what]
    async with Upstream(script) as a, Upstream(script) as b, Proxy(guarded(a, b, retries=tries(1))) as proxy:
        before_mb = resident_mb()
        seen = await ask(proxy, stream=streamed)
        grown_mb = resident_mb() - before_mb
        pulled_mb = max(received.bytes_sent for received in [*a.requests, *b.requests]) / 2**20

    record_property("row 30", f"{what} without end: told, {pulled_mb:.0f} MB pulled, memory +{grown_mb:.0f} MB")
    assert of(seen).kind == "told"
    assert pulled_mb <= most_mb + IN_BUFFERS_MB


# -- 31: usage that is a lie -----------------------------------------------------------------------------------------

HONEST = b'"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}'
USED = b'{"prompt_tokens":9,"completion_tokens":3,'
LIES: dict[str, bytes] = {
    "negative": b'{"prompt_tokens":-9,"completion_tokens":-3,"total_tokens":-12}',
    "one negative": b'{"prompt_tokens":9,"completion_tokens":-3,"total_tokens":6}',
    "huge": b'{"prompt_tokens":1e30,"completion_tokens":99999999999999999999999999,"total_tokens":1e31}',
    "NaN": b'{"prompt_tokens":NaN,"completion_tokens":NaN,"total_tokens":NaN}',
    "infinite": b'{"prompt_tokens":1e999,"completion_tokens":-1e999,"total_tokens":1e999}',
    "text": b'{"prompt_tokens":"nine","completion_tokens":"three","total_tokens":"twelve"}',
    "true": b'{"prompt_tokens":true,"completion_tokens":true,"total_tokens":true}',
    "lists": b'{"prompt_tokens":[9],"completion_tokens":{},"total_tokens":[]}',
    "more cached than asked": USED + b'"prompt_tokens_details":{"cached_tokens":999}}',
    "more thought than said": USED + b'"completion_tokens_details":{"reasoning_tokens":99}}',
    "no object": b'"12"',
    "a list": b"[9,3]",
    "null": b"null",
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_a_lie_about_usage_is_cut_and_marked_as_an_estimate(streamed: bool, record_property: Figure) -> None:
    """Row 31: no count is negative or beyond what a call can use; what attempts cost is what the call costs."""
    kinds: dict[str, str] = {}
    async with Upstream() as a, Upstream() as b, Proxy(guarded(a, b, llm={"prices": PRICES}, retries=SOON)) as proxy:
        for number, (lie, usage) in enumerate(LIES.items(), 1):
            a.script = b.script = _using(usage, streamed=streamed)
            kinds[lie] = of(await ask(proxy, stream=streamed)).kind
            outcome = await proxy.outcome(number)
            found = outcome.usage
            assert found is not None, lie
            assert found.source is UsageSource.ESTIMATED, lie
            assert 0 < found.input_tokens <= MOST_TOKENS, lie
            assert 0 <= found.output_tokens <= MOST_TOKENS, lie
            assert 0 <= found.cached_input_tokens <= found.input_tokens, lie
            assert 0 <= found.reasoning_tokens <= found.output_tokens, lie
            paid = Money(found.input_tokens * 1000 + found.output_tokens * 2000)
            attempts = [it.outcome for it in proxy.exchanges[-1].attempts]
            assert outcome.cost == paid == sum((it.cost for it in attempts if it and it.cost), Money()), lie

    record_property("row 31", f"{'streams' if streamed else 'plain'}: {len(LIES)} lies, all estimates, drift 0")
    # It is no JSON, and is told; in a stream that is copied what stands inside the braces is the client's to read.
    assert {lie for lie, kind in kinds.items() if kind != "right"} == (set() if streamed else {"NaN"})


def _using(usage: bytes, *, streamed: bool) -> Script:
    """An answer that tells *usage*."""
    if streamed:
        data = sse(chat_chunk("hello"), chat_chunk(None, finish="stop"), usage_chunk())
        return [Head(200, EVENT_STREAM), Chunk(data.replace(HONEST, b'"usage":' + usage)), End()]
    data = json.dumps(completion("hello"), separators=(",", ":")).encode()
    return reply(data.replace(HONEST, b'"usage":' + usage))
