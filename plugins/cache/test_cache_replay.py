"""A hit says what the miss said, in whichever form it is asked for, and costs nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from test_cache_kit import COST, Cached, caching, is_stream, reply_in, status

from llmproxy_core import End, Money, Usage
from llmproxy_core.chat import Choice, ReasoningPart, TextPart, ToolCall
from tests.answers import chat_chunk, completion, replay, reply, stream, usage_chunk
from tests.llmproxy_core.conversation import question
from tests.recordings import Recording, openai_recordings, without_usage_chunk
from tests.script import Script
from tests.upstream import Upstream

PLAIN = reply(completion("Hello"))
STREAM = stream(chat_chunk("Hel"), chat_chunk("lo"), chat_chunk(None, finish="stop"), usage_chunk())


@pytest.mark.parametrize("first", [False, True], ids=["plain first", "stream first"])
@pytest.mark.parametrize("then", [False, True], ids=["plain hit", "stream hit"])
async def test_one_answer_serves_both_forms(first: bool, then: bool) -> None:
    async with Upstream(STREAM if first else PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        miss = await proxy.ask(question(stream=first, usage=True) if first else question())
        hit = await proxy.ask(question(stream=then, usage=True) if then else question())

    assert [status(it) for it in (miss, hit)] == ["miss", "hit"]
    assert [is_stream(it) for it in (miss, hit)] == [first, then]
    assert len(upstream.requests) == 1
    assert hit.whole
    assert reply_in(hit) == reply_in(miss)
    if first == then:
        assert hit.body == miss.body


async def test_the_usage_event_comes_to_who_asked_for_it() -> None:
    async with Upstream(STREAM) as upstream, Cached(caching(upstream.base_url)) as proxy:
        without = await proxy.ask(question(stream=True))
        with_usage = await proxy.ask(question(stream=True, usage=True))
        again = await proxy.ask(question(stream=True))

    assert b'"usage"' not in without.body
    assert b'"total_tokens":12' in with_usage.body
    assert again.body == without.body == without_usage_chunk(with_usage.body)
    assert [status(it) for it in (with_usage, again)] == ["hit", "hit"]


# -- recordings ------------------------------------------------------------------------------------------------------


def refused(it: Recording) -> bool:
    return "refus" in it.name


GOOD = [it for it in openai_recordings() if it.protocol in ("chat", "completions") and it.response_status == 200]
KEPT = [it for it in GOOD if not refused(it)]


def test_there_are_recordings_of_all_that_must_be_faithful() -> None:
    bodies = [it.response_body for it in KEPT]

    for sign in (b'"tool_calls"', b'"reasoning', b'"index":1', b'"usage"', b'"annotations"'):
        assert any(sign in body.replace(b": ", b":") for body in bodies), sign
    assert {it.is_event_stream for it in KEPT} == {True, False}


@pytest.mark.parametrize("flipped", [False, True], ids=["same form", "other form"])
@pytest.mark.parametrize("it", KEPT, ids=str)
async def test_a_recorded_answer_comes_again_as_it_came(it: Recording, flipped: bool) -> None:
    asked = {**json.loads(it.request_body), "stream": it.is_event_stream}
    if it.is_event_stream:
        asked["stream_options"] = {"include_usage": True}
    again = {name: value for name, value in asked.items() if name != "stream_options"}
    again["stream"] = it.is_event_stream != flipped
    if again["stream"]:
        again["stream_options"] = {"include_usage": True}
    legacy = it.protocol == "completions"
    path, api = ("/v1/completions", "openai.completions") if legacy else ("/v1/chat/completions", "openai.chat")
    async with Upstream(replay(it)) as upstream, Cached(caching(upstream.base_url)) as proxy:
        miss = await proxy.ask(json.dumps(asked).encode(), path=path)
        hit = await proxy.ask(json.dumps(again).encode(), path=path)

    assert (status(miss), status(hit)) == ("miss", "hit")
    assert is_stream(hit) == again["stream"]
    assert len(upstream.requests) == 1
    if not flipped:
        assert hit.body == miss.body
    assert _comparable(reply_in(hit, api).choices) == _comparable(reply_in(miss, api).choices)
    same = [(found.id, found.model, found.usage, found.created) for found in (reply_in(hit, api), reply_in(miss, api))]
    assert same[0] == same[1]


def _comparable(choices: tuple[Choice, ...]) -> list[Choice]:
    """Choices without the provider's own spelling of why they ended: another form says it in the protocol's."""
    return [
        attrs.evolve(it, finish=None if it.finish is None else attrs.evolve(it.finish, word=None)) for it in choices
    ]


async def test_tools_thinking_and_several_choices_are_all_there() -> None:
    def choice(index: int, **delta: object) -> dict[str, object]:
        return chat_chunk(None) | {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}

    def finished(index: int, word: str) -> dict[str, object]:
        return chat_chunk(None) | {"choices": [{"index": index, "delta": {}, "finish_reason": word}]}

    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a":1}'}}
    script = stream(
        choice(0, role="assistant", reasoning_content="Let me think"),
        choice(1, content="One"),
        choice(0, tool_calls=[call]),
        choice(1, content=" two"),
        choice(0, tool_calls=[more]),
        finished(1, "length"),
        finished(0, "tool_calls"),
        usage_chunk(),
    )
    async with Upstream(script) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(question(stream=True))
        hit = await proxy.ask(question())

    first, second = reply_in(hit).choices
    assert [type(part) for part in first.content] == [ReasoningPart, ToolCall]
    assert isinstance(first.content[1], ToolCall)
    assert (first.content[1].id, first.content[1].arguments) == ("call_1", '{"a":1}')
    assert second.content == (TextPart("One two"),)
    assert [it.finish.word for it in (first, second) if it.finish is not None] == ["tool_calls", "length"]
    assert reply_in(hit).usage == Usage(9, 3)


PROBABILITIES: dict[str, Any] = {
    "content": [{"token": "Hello", "logprob": -0.10, "bytes": None, "top_logprobs": []}],
    "refusal": None,
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain first", "stream first"])
async def test_the_log_probabilities_are_there_in_both_forms(streamed: bool) -> None:
    whole: dict[str, Any] = completion("Hello")
    chunk: dict[str, Any] = chat_chunk("Hello")
    for value in (whole, chunk):
        value["choices"][0]["logprobs"] = PROBABILITIES
    script = stream(chunk, chat_chunk(None, finish="stop"), usage_chunk()) if streamed else reply(whole)
    async with Upstream(script) as upstream, Cached(caching(upstream.base_url)) as proxy:
        await proxy.ask(question(stream=streamed, logprobs=True))
        hits = [await proxy.ask(question(stream=it, logprobs=True)) for it in (False, True)]

    assert [status(it) for it in hits] == ["hit", "hit"]
    for hit in hits:
        (choice,) = reply_in(hit).choices
        assert choice.logprobs is not None
        assert json.loads(choice.logprobs)["content"] == PROBABILITIES["content"]


# -- what it costs, and how it is marked ------------------------------------------------------------------------------


class Lines(logging.Handler):
    """Keeps the fields of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(record.__dict__["fields"])


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, handler = logging.getLogger("llmproxy.access"), Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("then", [False, True], ids=["plain hit", "stream hit"])
async def test_a_hit_costs_nothing_and_says_so(streamed: bool, then: bool, lines: Lines) -> None:
    async with Upstream(STREAM if streamed else PLAIN) as upstream, Cached(caching(upstream.base_url)) as proxy:
        miss = await proxy.ask(question(stream=streamed))
        proxy.wall.now += 90.7
        hit = await proxy.ask(question(stream=then))

    paid, free = proxy.outcomes
    assert (paid.end, paid.usage, paid.cost) == (End.COMPLETED, Usage(9, 3), Money(COST))
    assert (free.end, free.usage, free.cost) == (End.COMPLETED, None, Money(0))
    assert (free.model, free.finish) == (paid.model, paid.finish)
    assert [(bill.usage, bill.cost) for bill in proxy.bills.values()] == [
        (Usage(9, 3), Money(COST)),
        (None, Money(0)),
    ]
    assert not proxy.exchanges[1].attempts
    assert [it.header("age") for it in (miss, hit)] == [None, "90"]
    assert miss.header("x-llmproxy-cache-key") == hit.header("x-llmproxy-cache-key") is not None
    assert len(hit.header("x-llmproxy-cache-key") or "") == 64
    assert [line["cache"] for line in lines.fields] == ["miss", "hit"]
    assert "attempts" not in lines.fields[1]
    assert lines.fields[1]["cost"] == "$0"
    assert "input_tokens" not in lines.fields[1]


async def test_headers_of_the_provider_that_are_about_its_call_are_not_repeated() -> None:
    told = {"x-request-id": "req_1", "x-ratelimit-remaining-requests": "7"}
    async with (
        Upstream(reply(completion("Hello"), headers=told)) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
    ):
        miss, hit = [await proxy.ask(question()) for _ in range(2)]

    assert (miss.header("x-upstream-request-id"), miss.header("x-ratelimit-remaining-requests")) == ("req_1", "7")
    assert (hit.header("x-upstream-request-id"), hit.header("x-ratelimit-remaining-requests")) == (None, None)
    assert hit.header("x-request-id") not in (None, miss.header("x-request-id"))


EMBEDDING = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.10,-1.0e-3]}],"model":"e",\n'
    b'"usage":{"prompt_tokens":4,"total_tokens":4}}'
)


async def test_embeddings_come_again_byte_for_byte() -> None:
    async with Upstream(reply(EMBEDDING)) as upstream, Cached(caching(upstream.base_url)) as proxy:
        body, other = b'{"model":"e","input":"x"}', b'{"model":"e","input":"x","encoding_format":"base64"}'
        seen = [await proxy.ask(it, path="/v1/embeddings") for it in (body, body, other)]

    assert [status(it) for it in seen] == ["miss", "hit", "miss"]
    assert {it.body for it in seen} == {EMBEDDING}
    assert [(it.usage, it.cost) for it in proxy.outcomes[:2]] == [(Usage(4, 0), Money(4_000)), (None, Money(0))]


@pytest.mark.parametrize("script", [PLAIN, STREAM], ids=["plain", "stream"])
async def test_an_llm_that_cannot_stream_is_cached_as_any(script: Script) -> None:
    """A stream that is asked for is answered whole then, and kept so."""
    async with (
        Upstream(script) as upstream,
        Cached(caching(upstream.base_url, llm={"supports_streaming": False})) as proxy,
    ):
        seen = [await proxy.ask(question(stream=streamed)) for streamed in (True, True, False)]

    assert [status(it) for it in seen] == ["miss", "hit", "hit"]
    assert [reply_in(it).text for it in seen] == ["Hello"] * 3
