"""Where in an answer a fault comes: by its text, of whatever kind, the same above an LLM as around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from test_chaos_kit import Chaotic, above, always, below, raw_request, told

from tests.answers import chat_chunk, completion, reply, stream
from tests.exact import Seen, parse
from tests.rawclient import connected
from tests.script import Chunk, Head, Step
from tests.script import End as Close
from tests.upstream import Upstream

Form = Callable[..., dict[str, Any]]
BOTH = pytest.mark.parametrize("form", [above, below])


def delta(**members: object) -> dict[str, object]:
    chunk = chat_chunk(None)
    chunk["choices"] = [{"index": 0, "delta": members, "finish_reason": None}]
    return chunk


def argument(text: str) -> dict[str, object]:
    return delta(tool_calls=[{"index": 0, "function": {"arguments": text}}])


CALL = delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}])
KINDS: dict[str, Sequence[dict[str, object]]] = {
    "arguments": [CALL, argument('{"a":'), argument('"b"}')],
    "thinking": [delta(reasoning_content="hmm, "), delta(reasoning_content="well ")],
    "refusal": [delta(refusal="I do "), delta(refusal="not.")],
    "speech": [delta(audio={"id": "a", "transcript": "Good "}), delta(audio={"transcript": "day"})],
}
"""Streams of two pieces, of which the first has five characters."""


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("after_chars", "pieces"), [(4, 0), (5, 1)])
async def test_text_of_every_kind_counts(form: Form, kind: str, after_chars: int, pieces: int) -> None:
    *heads, first, second = KINDS[kind]
    sent = stream(*heads, first, second, chat_chunk(None, finish="stop"))
    async with (
        Upstream(sent) as upstream,
        Chaotic(form(upstream.base_url, {"cut": always(after_chars=after_chars)})) as proxy,
    ):
        seen = await proxy.ask(stream=True)

    came = seen.body.count(b"chat.completion.chunk")
    assert told(seen)["code"] == "upstream_cut"
    assert came == len(heads) + pieces


@BOTH
async def test_an_answer_that_tells_no_finish_breaks_before_its_terminal_event(form: Form) -> None:
    faults = {"timeout": always(clock="idle", ms=5, after_chars=1000)}
    async with Upstream(stream(chat_chunk("yes"))) as upstream, Chaotic(form(upstream.base_url, faults)) as proxy:
        seen = await proxy.ask(stream=True)

    assert b"yes" in seen.body
    assert told(seen)["code"] == "upstream_timeout_idle"


@BOTH
async def test_a_reply_that_is_written_as_a_stream_breaks_as_a_whole(form: Form) -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = form(upstream.base_url, {"cut": always(after_chars=1)})
        mapping["llm"]["openai"]["supports_streaming"] = False
        async with Chaotic(mapping) as proxy:
            seen = await proxy.ask(stream=True)

    assert (seen.status, told(seen)["code"]) == (502, "upstream_cut")


# -- what nobody can look into ---------------------------------------------------------------------------------------


async def opaque(form: Form, faults: dict[str, Any], *sent: bytes) -> tuple[Seen, Chaotic]:
    """An answer of *sent*, in pieces, to a question that the dialect does not know."""
    script: list[Step] = [Head(200, {"content-type": "audio/mpeg"}), *map(Chunk, sent), Close()]
    async with Upstream(script) as upstream:
        mapping = form(upstream.base_url, faults)
        mapping["route"][0]["operations"] = ["opaque"]
        async with Chaotic(mapping) as proxy, connected(proxy.port) as client:
            client.send(raw_request(proxy.port, "/v1/audio/speech", b'{"model": "m"}', close=True))
            return parse(await client.rest()), proxy


async def test_the_llm_counts_bytes_where_there_is_no_text() -> None:
    seen, proxy = await opaque(below, {"cut": always(after_chars=10)}, b"12345678")

    assert (seen.status, seen.body, seen.whole) == (200, b"12345678", False)
    assert proxy.injected == [["cut"]]


async def test_the_llm_lets_pass_what_it_only_slows_down() -> None:
    seen, proxy = await opaque(below, {"slow_drip": always(ms=1)}, b"1234", b"5678")

    assert (seen.body, seen.whole) == (b"12345678", True)
    assert proxy.injected == [["slow_drip"]]


async def test_the_processor_lets_pass_what_it_cannot_look_into() -> None:
    seen, proxy = await opaque(above, {"cut": always(), "latency": always(ms=1)}, b"12345678")

    assert (seen.body, seen.whole) == (b"12345678", True)
    assert proxy.injected == [["latency"]]


@BOTH
async def test_a_call_of_no_protocol_gets_an_error_too(form: Form) -> None:
    seen, _ = await opaque(form, {"error": always(status=503, retry_after_s=2)}, b"never sent")

    assert (seen.status, seen.header("retry-after")) == (503, "2")
