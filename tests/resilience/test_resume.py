"""Where a group says so, a stream that breaks off in the middle of its text is gone on with by the next member."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.body import PulledBody
from llmproxy_core.chat import ChatEvent, Finish, Finished, FinishReason, Start, TextDelta, UsageReported
from llmproxy_core.chat import End as LastEvent
from llmproxy_core.dialect import Operation
from llmproxy_core.exchange import Exchange
from llmproxy_core.groups.resumed import _Seam, resumable
from llmproxy_core.outcome import End
from llmproxy_core.request import Request
from llmproxy_core.response import Response, Stream
from llmproxy_core.tasks import Tasks
from llmproxy_core.testing.grammar import check_stream
from llmproxy_core.usage import Usage
from tests.answers import chat_chunk, sse, stream, usage_chunk
from tests.exact import Seen, post
from tests.proxy import Proxy
from tests.resilience.flocks import ask, fails, group, says
from tests.script import EVENT_STREAM, Chunk, Cut, Head, Stall, Step
from tests.script import End as EndOfBody
from tests.speaking import Speaker, dialects, said
from tests.upstream import Upstream

PLUGINS = [llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral]
REST = [chat_chunk(" of llamas"), chat_chunk(None, finish="stop")]
PREFILLED = {"prefill": "last-turn"}


def broken(*values: Any) -> list[Step]:
    """A stream that is cut after *values*: texts, or whole chunks."""
    chunks = [chat_chunk(value) if isinstance(value, str) else value for value in values]
    return [Head(200, EVENT_STREAM), *(Chunk(sse(chunk, done=False)) for chunk in chunks), Cut()]


def resuming(*upstreams: Upstream, llm: dict[str, Any] | None = None, **keys: Any) -> Any:
    return group("fallback", *upstreams, llm=PREFILLED if llm is None else llm, resume=True, **keys)


def text_of(seen: Seen) -> str:
    """All that an OpenAI client reads."""
    events = [line[6:] for line in seen.body.split(b"\n") if line.startswith(b"data: {")]
    chunks = [json.loads(event) for event in events]
    assert all("error" not in chunk for chunk in chunks), seen.body
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


def asked(upstream: Upstream) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(upstream.requests[-1].body)
    return body


# -- the answer ------------------------------------------------------------------------------------------------------


async def test_the_next_member_goes_on_where_the_first_broke_off() -> None:
    async with (
        Upstream(broken("A herd", " ")) as a,
        Upstream(stream(*REST)) as b,
        Proxy(resuming(a, b)) as proxy,
    ):
        seen = await ask(proxy, stream=True)
        await proxy.outcome()

        assert text_of(seen) == "A herd of llamas"
        assert (seen.status, seen.whole, seen.header("x-llmproxy-resume")) == (200, True, "allowed")
        assert seen.body.endswith(b"data: [DONE]\n\n")
        assert asked(b)["messages"] == [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "A herd"},
        ]
        exchange = proxy.exchanges[0]
        assert exchange.log_fields["resumed"] == 1
        assert [(it.llm, it.next) for it in exchange.attempts] == [
            ("a", "upstream: resumed by the next member"),
            ("b", None),
        ]
        assert proxy.outcomes[0].end is End.COMPLETED


async def test_nothing_is_another_where_nothing_breaks() -> None:
    whole = stream(chat_chunk("A herd"), *REST, usage_chunk())
    async with Upstream(whole) as a, Upstream() as b:
        async with Proxy(group("fallback", a, b)) as proxy:
            plain = await ask(proxy, stream=True, stream_options={"include_usage": True})
            told_plain = await proxy.outcome()
        a.then(whole)
        async with Proxy(resuming(a, b)) as proxy:
            seen = await ask(proxy, stream=True, stream_options={"include_usage": True})
            told_resuming = await proxy.outcome()

        assert seen.body == plain.body
        assert (told_resuming.usage, told_resuming.model, told_resuming.finish) == (
            told_plain.usage,
            told_plain.model,
            told_plain.finish,
        )


@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic", "gemini", "mistral"])
@given(size=st.integers(1, 400), at=st.integers(0, 400))
def test_an_answer_that_does_not_break_is_passed_on_however_it_is_cut(name: str, size: int, at: int) -> None:
    """A read in which no event ends is not the end."""
    dialect = dialects()[name]
    api = dialect.api_for(Operation.CHAT, stream=True)
    assert api is not None
    events: list[ChatEvent] = [Start("1", "m", 1_700_000_000), TextDelta(0, "A herd"), TextDelta(0, " of llamas" * 30)]
    events += [Finished(0, Finish(FinishReason.STOP)), UsageReported(Usage(3, 4)), LastEvent()]
    writer = dialect.writer(api, usage=True)
    whole = b"".join(writer.write([event], None) for event in events)
    cuts = [0, *range(min(at, len(whole)), len(whole), size), len(whole)]

    async def read() -> tuple[bytes, End, int]:
        pieces = iter([whole[begin:end] for begin, end in pairwise(cuts) if end > begin])
        tasks, request = Tasks(), Request(operation=Operation.CHAT, dialect=dialect, api=api, body=b"{}")
        exchange = Exchange(request, id="1", route="/", tasks=tasks, clock=time.monotonic)

        async def piece() -> bytes:
            return next(pieces, b"")

        async def nobody(*_: object) -> Response:
            raise AssertionError

        first = Stream(exchange, PulledBody(piece, tasks=tasks), dialect=dialect, api=api)
        found = resumable(first, request, nobody, tasks)
        out = b""
        while data := await found.read():
            out += data
        assert first.outcome is not None
        assert first.outcome.usage is not None
        return out, first.outcome.end, first.outcome.usage.output_tokens

    assert asyncio.run(read()) == (whole, End.COMPLETED, 4)


async def test_an_answer_that_breaks_off_in_an_event_is_gone_on_with() -> None:
    begun = [*broken("A herd", " ")[:-1], Chunk(b'data: {"id": "half'), Cut()]
    async with Upstream(begun) as a, Upstream(stream(*REST)) as b, Proxy(resuming(a, b)) as proxy:
        assert text_of(await ask(proxy, stream=True)) == "A herd of llamas"


@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic", "gemini", "mistral"])
async def test_an_answer_of_two_protocols_is_right_in_that_of_the_client(name: str) -> None:
    """The first part is OpenAI's, the rest is Claude's; each client reads one answer, with one end."""
    speaker = Speaker(name)
    async with Upstream(broken("A herd", " of")) as a, Upstream(claude(" llamas.")) as b:
        mapping = resuming(a, b, llm={})
        mapping["llm"]["b"] |= {"provider": "anthropic"}
        mapping["route"][0]["path_prefix"] = "/"
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            path, body = speaker.path(stream=True, model="m"), speaker.body(stream=True, model="m")
            seen = await post(proxy.url + path, body, speaker.headers())

    assert check_stream(name, seen.body, failed=False, strict=False) == []
    assert said(speaker.read(seen.body, stream=True)) == "A herd of llamas."
    turn = asked(b)["messages"][-1]
    assert turn["role"] == "assistant"
    assert turn["content"] in ("A herd of", [{"type": "text", "text": "A herd of"}])


async def test_one_that_breaks_off_as_well_is_gone_on_with_by_the_one_after() -> None:
    async with (
        Upstream(broken("A")) as a,
        Upstream(broken(" herd")) as b,
        Upstream(stream(*REST)) as c,
        Proxy(resuming(a, b, c)) as proxy,
    ):
        seen = await ask(proxy, stream=True)

        assert text_of(seen) == "A herd of llamas"
        assert asked(c)["messages"][-1]["content"] == "A herd"
        assert proxy.exchanges[0].log_fields["resumed"] == 2


async def test_a_member_that_answers_whole_goes_on_too() -> None:
    async with Upstream(broken("A herd")) as a, Upstream(says_rest()) as b:
        mapping = resuming(a, b)
        mapping["llm"]["b"]["supports_streaming"] = False
        async with Proxy(mapping) as proxy:
            assert text_of(await ask(proxy, stream=True)) == "A herd of llamas"


async def test_what_was_told_as_an_error_in_mid_stream_is_gone_on_with() -> None:
    overloaded = {"error": {"message": "overloaded", "type": "server_error", "code": 503}}
    steps: list[Step] = [
        Head(200, EVENT_STREAM),
        Chunk(sse(chat_chunk("A herd"), overloaded, done=False)),
        EndOfBody(),
    ]
    async with Upstream(steps) as a, Upstream(stream(*REST)) as b, Proxy(resuming(a, b)) as proxy:
        assert text_of(await ask(proxy, stream=True)) == "A herd of llamas"


async def test_an_answer_that_had_said_nothing_begins_anew() -> None:
    """With `commit = "headers"` the head of the first may be all that the client has got."""
    role = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    async with (
        Upstream(broken(role)) as a,
        Upstream(stream(*REST)) as b,
        Proxy(resuming(a, b, llm={}, commit="headers")) as proxy,
    ):
        seen = await ask(proxy, stream=True)

        assert text_of(seen) == " of llamas"
        assert len(asked(b)["messages"]) == 1


async def test_a_client_that_has_got_no_byte_yet_is_told_in_the_head() -> None:
    """Translated answers begin with their first word, so that here the head is not sent when the first part breaks."""
    role = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    speaker = Speaker("anthropic")
    async with Upstream(broken(role)) as a, Upstream(stream(*REST)) as b:
        mapping = resuming(a, b, llm={}, commit="headers")
        mapping["route"][0]["path_prefix"] = "/"
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            path, body = speaker.path(stream=True, model="m"), speaker.body(stream=True, model="m")
            seen = await post(proxy.url + path, body, speaker.headers())

    assert seen.header("x-llmproxy-resume") == "done"


# -- money -----------------------------------------------------------------------------------------------------------


async def test_each_part_is_billed_as_what_it_was_and_the_client_is_told_the_sum() -> None:
    rest = stream(*REST, usage_chunk(prompt=20, completion=4))
    prices = {"prices": {"*": {"input": 1, "output": 2}}}
    async with (
        Upstream(broken("A herd")) as a,
        Upstream(rest) as b,
        Proxy(resuming(a, b, llm={**PREFILLED, **prices})) as proxy,
    ):
        seen = await ask(proxy, stream=True, stream_options={"include_usage": True}, max_tokens=100)
        bill = await proxy.outcome()

        first, second = (attempt.outcome for attempt in proxy.exchanges[0].attempts)
        assert first is not None
        assert second is not None
        assert first.usage is not None
        assert first.usage.output_tokens >= 1, "estimated: nothing was told"
        assert second.usage == Usage(20, 4)
        assert bill.usage == first.usage + second.usage
        assert first.cost is not None
        assert second.cost is not None
        assert bill.cost == first.cost + second.cost
        last = json.loads(seen.body.split(b"data: ")[-2])
        assert last["usage"]["completion_tokens"] == bill.usage.output_tokens
        assert asked(b)["max_tokens"] == 100 - first.usage.output_tokens


async def test_a_client_that_leaves_in_the_rest_leaves_nothing_behind() -> None:
    rest: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk(" of"), done=False)), Stall()]
    async with Upstream(broken("A herd")) as a, Upstream(rest) as b, Proxy(resuming(a, b)) as proxy:
        await leave_after(proxy, b'" of"')
        bill = await proxy.outcome()
        await b.until(lambda: b.connections_open == 0)

        assert bill.end is End.ABANDONED
        assert [it.outcome is not None for it in proxy.exchanges[0].attempts] == [True, True]
        assert proxy.exchanges[0].tries is None


async def leave_after(proxy: Proxy, seen: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:{proxy.port}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(5):
        await reader.readuntil(seen)
    writer.close()
    await writer.wait_closed()


# -- what is not gone on with ----------------------------------------------------------------------------------------

CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
TOOL = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("beginning", "members"),
    [
        pytest.param(["A herd", TOOL], {}, id="a tool is called"),
        pytest.param(["A herd", chat_chunk(None, finish="stop")], {}, id="the text is over"),
        pytest.param(['{"a":'], {"response_format": {"type": "json_object"}}, id="the text is to be JSON"),
        pytest.param(["A herd"], {"n": 2}, id="several answers"),
        pytest.param(["A herd"], {"logprobs": True}, id="each token has its chances"),
        pytest.param(["A herd"], {"store": True}, id="the provider keeps it"),
    ],
)
async def test_what_is_no_beginning_of_a_text_fails_as_ever(beginning: Sequence[Any], members: dict[str, Any]) -> None:
    async with Upstream(broken(*beginning)) as a, Upstream() as b, Proxy(resuming(a, b)) as proxy:
        seen = await ask(proxy, stream=True, **members)

        assert b'"upstream_cut"' in seen.body
        assert (seen.whole, b.requests) == (False, [])


@pytest.mark.parametrize("keys", [{}, {"prefill": "no"}], ids=["nothing is said of it", "it is said"])
async def test_a_member_that_cannot_go_on_is_passed_over(keys: dict[str, Any]) -> None:
    async with Upstream(broken("A herd")) as a, Upstream() as b, Upstream(stream(*REST)) as c:
        mapping = resuming(a, b, c, llm={})
        mapping["llm"]["b"] |= keys
        mapping["llm"]["c"] |= PREFILLED
        async with Proxy(mapping) as proxy:
            assert text_of(await ask(proxy, stream=True)) == "A herd of llamas"
            assert (b.requests, [it.llm for it in proxy.exchanges[0].passed_over]) == ([], ["b"])


async def test_where_nobody_can_go_on_the_client_is_told_of_the_first_failure() -> None:
    refused = fails(400, message="Prefilling assistant messages is not supported for this model.")
    async with (
        Upstream(broken("A herd")) as a,
        Upstream(refused) as b,
        Upstream(fails(503)) as c,
        Proxy(resuming(a, b, c)) as proxy,
    ):
        seen = await ask(proxy, stream=True)
        outcome = await proxy.outcome()

        assert b'"upstream_cut"' in seen.body
        assert (seen.whole, outcome.end) == (False, End.FAILED)
        assert (len(b.requests), len(c.requests)) == (1, 1)
        assert [it.llm for it in proxy.exchanges[0].attempts] == ["a", "b", "c"]


async def test_going_on_is_one_of_the_tries() -> None:
    none_left = {"max_retries": 0}
    async with Upstream(broken("A herd")) as a, Upstream() as b, Proxy(resuming(a, b, retries=none_left)) as proxy:
        assert b'"upstream_cut"' in (await ask(proxy, stream=True)).body
        assert b.requests == []


async def test_the_request_is_sent_as_each_provider_wants_it() -> None:
    async with Upstream(broken("A herd")) as a, Upstream(stream(*REST)) as b:
        mapping = resuming(a, b, llm={})
        mapping["llm"]["b"] |= {"provider": "mistral"}
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            assert text_of(await ask(proxy, stream=True, reasoning_effort="high")) == "A herd of llamas"

    assert asked(b)["messages"][-1] == {"role": "assistant", "content": "A herd", "prefix": True}
    assert "reasoning_effort" not in asked(b)


async def test_an_answer_that_its_client_had_begun_is_one_turn() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once, a"}]
    async with Upstream(broken(" herd")) as a, Upstream(stream(*REST)) as b, Proxy(resuming(a, b)) as proxy:
        assert text_of(await ask(proxy, stream=True, messages=messages)) == " herd of llamas"

    turns = asked(b)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    content = turns[-1]["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    assert text == "Once, a herd"


# -- the seam --------------------------------------------------------------------------------------------------------


@given(
    before=st.text("ab \n", max_size=8),
    rest=st.text("ab \n", max_size=8),
    repeats=st.booleans(),
    cuts=st.lists(st.integers(0, 20), max_size=4),
)
def test_what_the_client_has_got_is_not_said_again(before: str, rest: str, repeats: bool, cuts: list[int]) -> None:
    """Whether the rest begins with all that was to be gone on with, or behind the space that was cut off for it."""
    begun = before.rstrip()
    space = before[len(begun) :]
    answer = (begun if repeats else "") + space + rest
    seam, places = _Seam(before), sorted({0, *(cut for cut in cuts if cut < len(answer)), len(answer)})

    out = "".join(seam.feed(answer[start:end]) for start, end in pairwise(places)) + seam.end()

    if repeats or not answer.startswith(begun or "\0"):
        assert out == rest or begun.startswith(answer)  # so short that it may have been the beginning of all


def test_a_rest_that_only_begins_alike_is_not_cut() -> None:
    seam = _Seam("Alpha, beta")
    assert "".join(map(seam.feed, ["Al", "ps"])) + seam.end() == "Alps"


# -- helpers ---------------------------------------------------------------------------------------------------------


def claude(text: str) -> list[Step]:
    """A stream of Claude's that says *text*."""
    dialect = dialects()["anthropic"]
    writer = dialect.writer(next(api for api in dialect.apis if api.name == "anthropic.messages"), usage=True)
    events: list[ChatEvent] = [
        Start("msg_1", "claude-sonnet-4-5"),
        TextDelta(0, text),
        Finished(0, Finish(FinishReason.STOP)),
        UsageReported(Usage(20, 4)),
        LastEvent(),
    ]
    return [Head(200, EVENT_STREAM), Chunk(b"".join(writer.write([event], None) for event in events)), EndOfBody()]


def says_rest() -> list[Step]:
    return says(" of llamas")
