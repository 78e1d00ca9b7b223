"""Keeping the bytes of an answer: below a rewrite as its maker sent them, above it as rewritten, within a bound."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from llmproxy_core import Channel, GuardrailBlocked, Keep, KeptBody, Outcome, Response, Tasks, TextFilter, UpstreamCut
from llmproxy_core.chat import ChatEvent, Finish, Finished, FinishReason, TextDelta
from llmproxy_core.keeping import Keeper
from llmproxy_core.testing import Answer
from llmproxy_core.text import Replace
from tests.answers import usage_chunk
from tests.llmproxy_core.conversation import (
    APIS,
    EMBEDDINGS,
    ERROR_EVENT,
    SOON_S,
    STREAMED,
    WAYS,
    Asking,
    Way,
    events,
    go,
    run,
    said,
    whole,
)

MANY = 100_000


def _redact(channel: Channel) -> TextFilter:
    return Replace({"secret": "***"})


class Keeping(Asking):
    """A processor that keeps the body; *keep* is its last wish, *outcome* what the response's end told."""

    def __init__(self, max_bytes: int = MANY) -> None:
        super().__init__(self._ask)
        self._max_bytes = max_bytes
        self.keep = Keep(0)
        self.outcomes: list[Outcome] = []

    def _ask(self, response: Response) -> None:
        self.keep = response.keep_body(self._max_bytes)
        response.on_finish(self.outcomes.append)

    @property
    def body(self) -> KeptBody:
        assert self.keep.body is not None
        return self.keep.body


REWRITING = Asking(lambda response: response.rewrite(_redact))


# -- the bound -------------------------------------------------------------------------------------------------------


def test_bytes_are_kept_up_to_the_bound() -> None:
    wish = Keep(6)
    keeper = Keeper(wish, "a", stream=True)

    keeper.add(b"abc")
    keeper.add(b"def")
    before_the_end = wish.body
    keeper.done()

    assert before_the_end is None
    assert wish.body == KeptBody("a", True, b"abcdef")


def test_over_the_bound_nothing_is_kept() -> None:
    wish = Keep(6)
    keeper = Keeper(wish, "a", stream=False)

    for data in (b"abcd", b"efg", b"", b"h"):
        keeper.add(data)
    keeper.done()

    assert wish.body is None


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_answer_over_the_bound_passes_and_is_not_kept(tasks: Tasks, way: Way) -> None:
    keeping = Keeping(max_bytes=20)

    done = await go(way, "hello ", "world", processors=[keeping], tasks=tasks)

    assert said(done.body) == "hello world"
    assert keeping.keep.body is None
    assert keeping.outcomes[0].body is None


# -- below and above a rewrite ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_bytes_are_those_that_the_maker_sent(tasks: Tasks, way: Way) -> None:
    """The usage chunk that the client did not ask for is among them."""
    keeping = Keeping()

    await go(way, "hello ", "world", processors=[keeping], tasks=tasks)

    made = b"".join(events("hello ", "world")) if way.arrives_as_stream else whole("hello world")
    assert keeping.body == KeptBody("openai.chat", way.arrives_as_stream, made)
    assert keeping.outcomes[0].body is keeping.body


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_below_a_rewrite_the_makers_bytes_are_kept_and_above_it_the_rewritten(tasks: Tasks, way: Way) -> None:
    below, above = Keeping(), Keeping()

    done = await go(way, "a sec", "ret b", processors=[above, REWRITING, below], tasks=tasks)

    made = b"".join(events("a sec", "ret b")) if way.arrives_as_stream else whole("a secret b")
    assert below.body.data == made
    assert said(above.body.data) == "a *** b" == said(done.body)
    assert b"secret" not in above.body.data
    assert (above.body.api, above.body.stream) == ("openai.chat", way.arrives_as_stream)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_outcome_has_the_body_of_the_outermost_who_asked(tasks: Tasks, way: Way) -> None:
    below, above = Keeping(), Keeping()

    await go(way, "a secret", processors=[above, REWRITING, below], tasks=tasks)

    assert below.outcomes[0].body is above.outcomes[0].body is above.keep.body


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_between_two_rewrites_the_bytes_are_half_rewritten(tasks: Tasks, way: Way) -> None:
    between = Keeping()
    outer = Asking(lambda response: response.rewrite(lambda channel: Replace({"***": "#", "b": "c"})))

    done = await go(way, "a secret b", processors=[outer, between, REWRITING], tasks=tasks)

    assert said(between.body.data) == "a *** b"
    assert said(done.body) == "a # c"


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_each_keeper_has_its_own_bound(tasks: Tasks, way: Way) -> None:
    small, large = Keeping(max_bytes=10), Keeping()

    await go(way, "hello", processors=[small, large], tasks=tasks)

    assert small.keep.body is None
    assert large.keep.body is not None


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_watcher_does_not_change_what_is_kept(tasks: Tasks, way: Way) -> None:
    keeping, watching = Keeping(), Asking(lambda response: response.watch(lambda channel: None))

    await go(way, "hello", processors=[keeping, watching], tasks=tasks)

    made = b"".join(events("hello")) if way.arrives_as_stream else whole("hello")
    assert keeping.body.data == made


@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_kept_rewritten_stream_is_a_whole_stream(tasks: Tasks, way: Way) -> None:
    """A cache plays it again: it has an end, and the usage that a later client may ask for."""
    above = Keeping()

    await go(way, "a secret", processors=[above, REWRITING], tasks=tasks)
    again = await run(Answer([above.body.data]), tasks=tasks, stream=True, usage=True)

    assert again.result.error is None
    assert said(again.body) == "a ***"
    assert json.dumps(usage_chunk()["usage"], separators=(",", ":")).encode() in again.body


# -- above and below a replacement -----------------------------------------------------------------------------------


async def _shout(source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in source:
        yield TextDelta(event.choice, event.text.upper()) if isinstance(event, TextDelta) else event


async def _one_word(source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    """Stops after the first text, without reading the rest."""
    async for event in source:
        yield event
        if isinstance(event, TextDelta):
            break
    yield Finished(0, Finish(FinishReason.LENGTH))


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_above_a_replacement_the_replaced_events_are_kept(tasks: Tasks, way: Way) -> None:
    above, below = Keeping(), Keeping()

    done = await go(way, "hello ", "world", processors=[above, Asking(lambda r: r.replace(_shout)), below], tasks=tasks)

    assert said(done.body) == "HELLO WORLD"
    assert said(below.body.data) == "hello world"
    assert said(above.body.data) == "HELLO WORLD"
    if way.arrives_as_stream:
        assert above.body.data.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_what_a_replacement_did_not_read_to_its_end_is_not_kept_as_whole(tasks: Tasks, way: Way) -> None:
    above, below = Keeping(), Keeping()

    done = await go(
        way, "hello ", "world", processors=[above, Asking(lambda r: r.replace(_one_word)), below], tasks=tasks
    )

    assert said(above.body.data) == said(done.body)
    if way.arrives_as_stream:
        assert said(done.body) == "hello "
        assert below.keep.body is None
    else:
        assert said(below.body.data) == "hello world"


# -- answers that do not end well ------------------------------------------------------------------------------------


class Blocking:
    def feed(self, text: str) -> None:
        if "world" in text:
            raise GuardrailBlocked("no")

    def end(self) -> None: ...


@pytest.mark.parametrize("pushed", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("last", [UpstreamCut("cut"), ERROR_EVENT, b"", b"data: {garbage\n\n"])
@pytest.mark.parametrize("rewritten", [False, True])
async def test_an_answer_that_fails_is_not_kept(
    tasks: Tasks, last: bytes | UpstreamCut, stream: bool, pushed: bool, rewritten: bool
) -> None:
    keeping = Keeping()
    chain = [keeping, REWRITING] if rewritten else [keeping]
    script = Answer([*events("hello", finish=None, usage=False, done=False), last])

    done = await run(script, *chain, tasks=tasks, stream=stream, pushed=pushed)

    assert done.result.error is not None
    assert keeping.keep.body is None
    assert keeping.outcomes[0].body is None


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_answer_that_was_refused_is_not_kept(tasks: Tasks, way: Way) -> None:
    keeping, watching = Keeping(), Asking(lambda response: response.watch(lambda channel: Blocking()))

    done = await go(way, "hello ", "world", processors=[watching, keeping], tasks=tasks)

    assert isinstance(done.result.error, GuardrailBlocked)
    assert keeping.outcomes[0].body is None


# -- what is no conversation -----------------------------------------------------------------------------------------

VECTORS = b'{"object":"list","data":[{"embedding":[0.1]}],"model":"e","usage":{"prompt_tokens":2,"total_tokens":2}}'


async def test_embeddings_are_kept_as_they_came(tasks: Tasks) -> None:
    """A cache of embeddings needs nothing else."""
    keeping = Keeping()

    done = await run(Answer(whole=VECTORS), keeping, tasks=tasks, api=EMBEDDINGS, body=b'{"model":"e","input":"hi"}')

    assert done.body == VECTORS
    assert keeping.body == KeptBody("openai.embeddings", False, VECTORS)
    assert keeping.outcomes[0].body is keeping.body


async def test_keeping_a_reply_does_not_make_it_understood(tasks: Tasks) -> None:
    """What passes without a cache passes with one: bytes that are kept are not read."""
    odd = b'{"id":1,"choices":"none","model":7}'
    keeping = Keeping()

    without = await run(Answer(whole=odd), tasks=tasks)
    done = await run(Answer(whole=odd), keeping, tasks=tasks)

    assert without.body == odd
    assert done.body == odd
    assert keeping.body.data == odd


async def test_a_reply_read_by_a_processor_is_kept_too(tasks: Tasks) -> None:
    keeping = Keeping()

    async def read(response: Response) -> None:
        await asyncio.wait_for(response.reply(), SOON_S)

    await run(Answer(events("hello")), Asking(read), keeping, tasks=tasks)

    assert keeping.body.data == b"".join(events("hello"))


async def test_legacy_completions_are_kept_in_their_own_form(tasks: Tasks) -> None:
    api = APIS["openai.completions"]
    choice = b'{"index":0,"text":"hi","finish_reason":"stop"}'
    answer = b'{"id":"c","object":"text_completion","created":1,"model":"m","choices":[' + choice + b"]}"
    keeping = Keeping()

    await run(Answer(whole=answer), keeping, tasks=tasks, api=api, body=b'{"model":"m","prompt":"hi"}')

    assert keeping.body == KeptBody("openai.completions", False, answer)
