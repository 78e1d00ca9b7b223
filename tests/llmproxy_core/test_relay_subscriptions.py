"""Rewriting and watching an answer, on every way to the client."""

import json

import pytest

from llmproxy_core import (
    Channel,
    End,
    GuardrailBlocked,
    InternalError,
    Outcome,
    Response,
    Tasks,
    TextFilter,
)
from llmproxy_core.testing import Answer
from llmproxy_core.text import Replace, WordWatcher
from tests.answers import DONE, completion
from tests.llmproxy_core.conversation import (
    STREAMED,
    USED,
    WAYS,
    Asking,
    Way,
    chunk,
    error_in,
    go,
    run,
    said,
    values,
)
from tests.llmproxy_core.flows import PUSHED


def _redacting(channel: Channel) -> TextFilter:
    return Replace({"secret": "***"})


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_filter_holds_on_every_way(tasks: Tasks, way: Way) -> None:
    done = await go(
        way, "a s", "ecr", "et and a sec", processors=[Asking(lambda r: r.rewrite(_redacting))], tasks=tasks
    )

    assert said(done.body) == "a *** and a sec"
    assert b"secret" not in done.body
    assert done.result.outcome.usage == USED


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_inner_processors_change_the_text_first(tasks: Tasks, way: Way) -> None:
    inner = Asking(lambda response: response.rewrite(lambda channel: Replace({"a": "b"})))
    outer = Asking(lambda response: response.rewrite(lambda channel: Replace({"b": "c"})))

    done = await go(way, "a b", processors=[outer, inner], tasks=tasks)

    assert said(done.body) == "c c"


CHANNELS = ["content", "reasoning_content", "refusal"]


@pytest.mark.parametrize("member", CHANNELS)
@PUSHED
async def test_every_text_channel_of_a_stream_is_rewritten(tasks: Tasks, member: str, pushed: bool) -> None:
    chunks = [chunk({member: "a se"}), chunk({member: "cret"}), chunk({}, finish="stop"), DONE]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body, member) == "a ***"


@pytest.mark.parametrize("member", CHANNELS)
async def test_every_text_channel_of_a_reply_is_rewritten(tasks: Tasks, member: str) -> None:
    answer = completion("")
    answer["choices"] = [
        {"index": 0, "message": {"role": "assistant", "content": None, member: "a secret"}, "finish_reason": "stop"}
    ]

    done = await run(Answer(whole=json.dumps(answer).encode()), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks)

    assert said(done.body, member) == "a ***"


@PUSHED
async def test_arguments_of_tool_calls_are_rewritten_each_for_itself(tasks: Tasks, pushed: bool) -> None:
    def call(index: int, arguments: str, **more: object) -> dict[str, object]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]}

    named = {"type": "function"}
    chunks = [
        chunk({"tool_calls": [{"index": 0, "id": "a", **named, "function": {"name": "f", "arguments": ""}}]}),
        chunk(call(0, '{"x":"sec')),
        chunk({"tool_calls": [{"index": 1, "id": "b", **named, "function": {"name": "g", "arguments": ""}}]}),
        chunk(call(1, 'ret"}')),
        chunk(call(0, 'ret"}')),
        chunk({}, finish="tool_calls"),
        DONE,
    ]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    arguments = {0: "", 1: ""}
    for value in values(done.body):
        for piece in value["choices"][0]["delta"].get("tool_calls") or []:
            arguments[piece["index"]] += piece["function"].get("arguments") or ""
    assert arguments == {0: '{"x":"***"}', 1: 'ret"}'}


@PUSHED
async def test_choices_are_rewritten_each_for_itself(tasks: Tasks, pushed: bool) -> None:
    chunks = [
        chunk({"content": "sec"}, index=0),
        chunk({"content": "ret"}, index=1),
        chunk({"content": "ret"}, index=0),
        chunk({}, index=0, finish="stop"),
        chunk({}, index=1, finish="stop"),
        DONE,
    ]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    assert (said(done.body, choice=0), said(done.body, choice=1)) == ("***", "ret")


@PUSHED
async def test_rewritten_text_goes_without_its_logprobs(tasks: Tasks, pushed: bool) -> None:
    """They spell the tokens that are not sent."""
    spelled = {"content": [{"token": "secret", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    chunks = [chunk({"content": "secret"}, logprobs=spelled), chunk({}, finish="stop"), DONE]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body) == "***"
    assert b"secret" not in done.body


async def test_a_rewritten_reply_goes_without_its_logprobs(tasks: Tasks) -> None:
    answer = completion("secret")
    answer["choices"] = [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "secret"},
            "logprobs": {"content": [{"token": "secret", "logprob": -0.1, "bytes": None, "top_logprobs": []}]},
            "finish_reason": "stop",
        }
    ]

    done = await run(Answer(whole=json.dumps(answer).encode()), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks)

    assert said(done.body) == "***"
    assert b"secret" not in done.body


def _refuse(word: str) -> None:
    raise GuardrailBlocked(f"The answer was stopped by the word list: {len(word)} letters")


def _watching(response: Response) -> None:
    response.watch(lambda channel: WordWatcher(["canary"], _refuse))


@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_refused_stream_ends_with_what_was_before_and_one_error_event(tasks: Tasks, way: Way) -> None:
    ends: list[Outcome] = []

    def ask(response: Response) -> None:
        _watching(response)
        response.on_finish(ends.append)

    done = await go(way, "before ", "can", "ary", " after", processors=[Asking(ask)], tasks=tasks)

    assert said(done.body) == "before can"
    assert "after" not in done.body.decode()
    assert DONE not in done.body
    assert done.body.count(b'"error"') == 1
    assert error_in(done.body)["code"] == "guardrail_blocked"
    assert error_in(done.body)["request_id"] == "test"
    assert [body.ends for body in done.llm.bodies] == [1]
    assert isinstance(done.result.error, GuardrailBlocked)
    assert ends[0].end is done.result.outcome.end is End.REFUSED


@pytest.mark.parametrize("way", [way for way in WAYS if way not in STREAMED], ids=str)
async def test_an_answer_that_is_refused_before_it_is_sent_is_not_sent(tasks: Tasks, way: Way) -> None:
    done = await go(way, "before canary after", processors=[Asking(_watching)], tasks=tasks)

    assert done.result.pieces == []
    assert isinstance(done.result.error, GuardrailBlocked)
    assert done.response.outcome is not None
    assert done.response.outcome.end is done.result.outcome.end is End.REFUSED


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_watcher_below_a_filter_sees_what_the_filter_takes_away(tasks: Tasks, way: Way) -> None:
    hiding = Asking(lambda response: response.rewrite(lambda channel: Replace({"canary": "bird"})))

    below = await go(way, "canary", processors=[hiding, Asking(_watching)], tasks=tasks)
    above = await go(way, "canary", processors=[Asking(_watching), hiding], tasks=tasks)

    assert isinstance(below.result.error, GuardrailBlocked)
    assert said(above.body) == "bird"


class Buggy:
    def feed(self, text: str) -> None:
        raise ZeroDivisionError("sk-canary")

    def end(self) -> None: ...


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_bug_in_a_watcher_fails_the_answer_and_shows_nothing_of_itself(tasks: Tasks, way: Way) -> None:
    done = await go(way, "hello", processors=[Asking(lambda r: r.watch(lambda channel: Buggy()))], tasks=tasks)

    assert isinstance(done.result.error, InternalError)
    assert done.result.error.code == "processor_failed"
    assert done.result.outcome.end is End.FAILED
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.FAILED
    assert b"sk-canary" not in done.body
    if way in STREAMED:
        assert error_in(done.body)["code"] == "processor_failed"
