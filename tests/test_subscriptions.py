"""
Whatever a processor asks of an answer holds on every way that the answer takes.

Ways: both APIs that are conversations, answered whole or in a stream, to clients that wanted one or the other, whether
the LLM can stream or not.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import attrs
import pytest

from llmproxy_core import End, Exchange, GuardrailBlocked, Handler, Outcome, Response
from llmproxy_core.chat import ChatEvent, TextDelta
from llmproxy_core.text import Replace, WordWatcher
from tests.answers import chat_chunk, completion, replay, reply, sse, stream, usage_chunk
from tests.exact import Seen, post
from tests.llmproxy_server.edging import Processing, processed
from tests.proxy import Proxy, openai_at
from tests.recordings import Recording, openai_recordings, without_usage_chunk
from tests.upstream import Upstream

SAID = ("my se", "cret is", " out")
WHOLE = "".join(SAID)


# -- the ways --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Way:
    """How an answer is asked for, and how it comes."""

    path: str
    asks_stream: bool
    comes_as_stream: bool
    can_stream: bool = True
    name: str = ""

    @property
    def legacy(self) -> bool:
        return self.path == "/completions"

    def __str__(self) -> str:
        return f"{self.path[1:].replace('/', ' ')}, {self.name}"

    def question(self) -> bytes:
        asked = {"prompt": "hi"} if self.legacy else {"messages": [{"role": "user", "content": "hi"}]}
        return json.dumps({"model": "m", **asked, **({"stream": True} if self.asks_stream else {})}).encode()

    def answer(self, texts: Sequence[str] = SAID) -> list[Any]:
        if self.comes_as_stream:
            return stream(*self.chunks(texts))
        return reply(self.whole("".join(texts)))

    def chunks(self, texts: Sequence[str] = SAID) -> list[dict[str, Any]]:
        chunks = [chat_chunk(text) for text in texts] + [chat_chunk(None, finish="stop")]
        if self.legacy:
            chunks = [_legacy(text, None) for text in texts] + [_legacy("", "stop")]
        return [*(chunk | {"own": {"x": 1.0}} for chunk in chunks), usage_chunk()]

    def whole(self, text: str = WHOLE) -> dict[str, Any]:
        if self.legacy:
            return _legacy(text, "stop") | {"usage": completion("")["usage"], "own": {"x": 1.0}}
        return completion(text) | {"own": {"x": 1.0}}


def _legacy(text: str, finish: str | None) -> dict[str, Any]:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1_700_000_000, "model": "m", "choices": [choice]}


WAYS = [
    way
    for path in ("/chat/completions", "/completions")
    for way in (
        Way(path, False, False, name="plain"),
        Way(path, True, True, name="streamed"),
        Way(path, True, False, can_stream=False, name="an LLM that cannot stream, a client that asks it to"),
        Way(path, True, False, name="asked for a stream, answered whole"),
        Way(path, False, True, name="asked for a whole, answered in a stream"),
    )
]
EVERY_WAY = pytest.mark.parametrize("way", WAYS, ids=str)

Ask = Callable[[Response], Awaitable[None] | None]


@attrs.frozen
class Went:
    """What a call left behind."""

    way: Way
    seen: Seen
    outcome: Outcome
    sent: dict[str, Any]

    @property
    def text(self) -> str:
        """All that the client was told."""
        choices = [choice for value in self.values for choice in value.get("choices", [])]
        if self.way.legacy:
            return "".join(choice["text"] for choice in choices)
        return "".join(
            (choice.get("delta") or choice.get("message"))["content"] or "" for choice in choices if _says(choice)
        )

    @property
    def values(self) -> list[dict[str, Any]]:
        if self.seen.header("content-type") == "application/json":
            return [json.loads(self.seen.body)]
        data = [line[6:] for line in self.seen.body.split(b"\n") if line.startswith(b"data: {")]
        return [json.loads(text) for text in data]


def _says(choice: dict[str, Any]) -> bool:
    return "content" in (choice.get("delta") or choice.get("message") or {})


async def go(way: Way, ask: Ask, texts: Sequence[str] = SAID) -> Went:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        if (asked := ask(response)) is not None:
            await asked
        return response

    async with Upstream(way.answer(texts)) as upstream:
        mapping = processed(openai_at(upstream.base_url, supports_streaming=way.can_stream))
        async with Proxy(mapping, plugins=[Processing(around)]) as proxy:
            seen = await post(proxy.base_url + way.path, way.question())
            outcome = await proxy.outcome()
            return Went(way, seen, outcome, json.loads(upstream.requests[0].body))


# -- what holds on each ----------------------------------------------------------------------------------------------


@EVERY_WAY
async def test_an_answer_comes_as_it_was_asked_for(way: Way) -> None:
    went = await go(way, lambda response: None)

    assert (went.seen.status, went.seen.whole, went.text) == (200, True, WHOLE)
    assert (went.seen.header("content-type") == "text/event-stream") == way.asks_stream
    assert went.seen.body.endswith(b"data: [DONE]\n\n") == way.asks_stream
    assert bool(went.sent.get("stream")) == (way.asks_stream and way.can_stream)
    assert ("stream_options" in went.sent) == (way.asks_stream and way.can_stream)
    if way.asks_stream:
        assert b'"choices":[]' not in went.seen.body  # nobody asked for the usage
    assert went.outcome.end is End.COMPLETED
    assert went.outcome.usage is not None
    assert (went.outcome.usage.input_tokens, went.outcome.usage.output_tokens) == (9, 3)


@pytest.mark.parametrize("way", [way for way in WAYS if way.asks_stream == way.comes_as_stream], ids=str)
async def test_an_answer_that_nobody_touches_keeps_every_byte(way: Way) -> None:
    went = await go(way, lambda response: None)

    whole = json.dumps(way.whole()).encode()
    assert went.seen.body == (sse(*way.chunks()[:-1]) if way.comes_as_stream else whole)


@EVERY_WAY
async def test_a_filter_changes_the_text_and_nothing_else(way: Way) -> None:
    went = await go(way, lambda response: response.rewrite(lambda channel: Replace({"secret": "******"})))

    assert went.text == "my ****** is out"
    assert b"cret" not in went.seen.body
    if way.asks_stream == way.comes_as_stream:
        assert all(value["own"] == {"x": 1.0} for value in went.values)
    assert went.outcome.end is End.COMPLETED
    assert went.outcome.usage is not None


@EVERY_WAY
async def test_a_watcher_stops_the_answer_before_the_word_is_out(way: Way) -> None:
    def block(word: str) -> None:
        raise GuardrailBlocked(f"Not allowed: {len(word)} characters")

    went = await go(way, lambda response: response.watch(lambda channel: WordWatcher(["secret"], block)))

    assert b"cret" not in went.seen.body
    assert went.values[-1]["error"]["code"] == "guardrail_blocked"
    assert b"[DONE]" not in went.seen.body
    begun = way.asks_stream and way.comes_as_stream
    assert (went.seen.status, went.seen.whole) == ((200, False) if begun else (400, True))
    assert went.outcome.end is End.REFUSED


@EVERY_WAY
async def test_the_events_can_be_replaced(way: Way) -> None:
    async def loudly(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        async for event in events:
            yield TextDelta(event.choice, event.text.upper()) if isinstance(event, TextDelta) else event

    went = await go(way, lambda response: response.replace(loudly))

    assert (went.seen.status, went.seen.whole, went.text) == (200, True, WHOLE.upper())
    assert went.seen.body.endswith(b"data: [DONE]\n\n") == way.asks_stream
    assert went.outcome.end is End.COMPLETED
    assert went.outcome.usage is not None


@EVERY_WAY
async def test_the_bytes_of_the_maker_are_kept_below_a_filter_and_the_filtered_above(way: Way) -> None:
    kept: list[Outcome] = []

    def ask(response: Response) -> None:
        below = response.keep_body(10_000)
        response.rewrite(lambda channel: Replace({"secret": "******"}))
        response.keep_body(10_000)

        def finished(outcome: Outcome) -> None:
            kept.append(outcome)
            bodies.append(below.body.data if below.body is not None else b"")

        response.on_finish(finished)

    bodies: list[bytes] = []
    await go(way, ask)

    (outcome,), (below,) = kept, bodies
    assert outcome.body is not None
    assert outcome.body.stream == way.comes_as_stream
    assert outcome.body.api == ("openai.completions" if way.legacy else "openai.chat")
    assert below == (sse(*way.chunks()) if way.comes_as_stream else json.dumps(way.whole()).encode())
    assert b"******" in outcome.body.data
    assert b"cret" not in outcome.body.data


@EVERY_WAY
async def test_the_end_is_told_once_of_the_response_and_once_of_the_exchange(way: Way) -> None:
    told: list[str] = []

    def ask(response: Response) -> None:
        response.on_finish(lambda outcome: told.append(f"response {outcome.end}"))
        response.exchange.on_finish(lambda outcome: told.append(f"exchange {outcome.end}"))

    await go(way, ask)

    assert told == ["response completed", "exchange completed"]


@EVERY_WAY
async def test_a_processor_may_read_the_answer_and_pass_it_on(way: Way) -> None:
    read: list[str] = []

    async def ask(response: Response) -> None:
        response.rewrite(lambda channel: Replace({"secret": "******"}))
        read.append((await response.reply()).text)

    went = await go(way, ask)

    assert read == ["my ****** is out"]
    assert (went.seen.status, went.seen.whole, went.text) == (200, True, "my ****** is out")
    assert went.outcome.end is End.COMPLETED


@EVERY_WAY
async def test_waiting_for_the_beginning_loses_nothing(way: Way) -> None:
    untouched = await go(way, lambda response: None)

    went = await go(way, lambda response: response.started())

    assert went.text == untouched.text == WHOLE
    assert went.outcome.end is End.COMPLETED


# -- recorded answers ------------------------------------------------------------------------------------------------

RECORDED = [it for it in openai_recordings() if it.protocol in ("chat", "completions") and it.response_status == 200]


class Loud:
    """A filter that changes every letter, and nothing else."""

    def feed(self, text: str) -> str:
        return text.upper()

    def flush(self) -> str:
        return ""


@pytest.mark.parametrize("it", RECORDED, ids=str)
async def test_of_a_recorded_answer_a_filter_changes_the_texts_alone(it: Recording) -> None:
    """Tools, several choices, thinking, refusals: all members that are no text stay, those nobody knows included."""

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.rewrite(lambda channel: Loud())
        return response

    async with (
        Upstream(replay(it)) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(around)]) as proxy,
    ):
        path = "/completions" if it.protocol == "completions" else "/chat/completions"
        seen = await post(proxy.base_url + path, it.request_body)

    body = it.response_body if it.wants_usage or not it.is_event_stream else without_usage_chunk(it.response_body)
    assert _values(seen.body) == [_louder(value) for value in _values(body)]
    assert seen.whole


def _values(body: bytes) -> list[Any]:
    if body.lstrip().startswith(b"{"):
        return [json.loads(body)]
    data = [line.removeprefix(b"data:").strip() for line in body.splitlines() if line.startswith(b"data:")]
    return [json.loads(text) for text in data if text != b"[DONE]"]


def _louder(value: dict[str, Any]) -> dict[str, Any]:
    for choice in value["choices"]:
        before = json.dumps(choice)
        said = choice.get("delta") or choice.get("message") or choice
        for name in ("content", "text", "refusal", "reasoning", "reasoning_content"):
            if isinstance(said.get(name), str):
                if name.startswith("reasoning") and said[name] != said[name].upper():
                    said.pop("reasoning_details", None)  # it repeats the thinking
                said[name] = said[name].upper()
        calls = [call["function"] for call in said.get("tool_calls") or []]
        for call in [*calls, *([said["function_call"]] if said.get("function_call") else [])]:
            if "arguments" in call:
                call["arguments"] = call["arguments"].upper()
        if json.dumps(choice) != before and "logprobs" in choice:
            choice["logprobs"] = None  # they spell the text
    return value
