"""What fails in mid-stream: what was good is sent, then one error event, and no end."""

from collections.abc import Callable

import pytest

from llmproxy_core import (
    Channel,
    End,
    GuardrailBlocked,
    ProxyError,
    Response,
    Secret,
    Stream,
    Tasks,
    TextFilter,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.testing import Answer, ScriptedBody
from llmproxy_core.text import Replace, WordWatcher
from tests.answers import DONE
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    ERROR_EVENT,
    Asking,
    error_in,
    events,
    exchange,
    question,
    run,
    said,
)
from tests.llmproxy_core.flows import PUSHED, client_of, flow_of, taken


def _redacting(channel: Channel) -> TextFilter:
    return Replace({"secret": "***"})


def _refuse(word: str) -> None:
    raise GuardrailBlocked("no")


def _watching(response: Response) -> None:
    response.watch(lambda channel: WordWatcher(["canary"], _refuse))


BEFORE = events("hello", usage=False, finish=None, done=False)
FAILURES: list[tuple[str, bytes | ProxyError, str]] = [
    ("cut", UpstreamCut("reset"), "upstream_cut"),
    ("idle", UpstreamTimeout("stalled", code="upstream_timeout_idle"), "upstream_timeout_idle"),
    ("error event", ERROR_EVENT, "overloaded"),
    ("no end", b"", "upstream_cut"),
    ("half an event", b'data: {"id":"x","choi', "upstream_cut"),
]


@pytest.mark.parametrize("rewritten", [False, True], ids=["copied", "rewritten"])
@PUSHED
@pytest.mark.parametrize(("last", "code"), [it[1:] for it in FAILURES], ids=[it[0] for it in FAILURES])
async def test_a_broken_stream_sends_what_was_good_then_one_error_event_and_no_end(
    tasks: Tasks, last: bytes | ProxyError, code: str, pushed: bool, rewritten: bool
) -> None:
    chain = [Asking(lambda r: r.rewrite(_redacting))] if rewritten else []

    done = await run(Answer([*BEFORE, last]), *chain, tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body) == "hello"
    assert error_in(done.body)["code"] == code
    assert done.body.count(b'"error"') == 1
    assert DONE not in done.body
    assert isinstance(done.result.error, UpstreamError)
    assert done.result.outcome.end is End.FAILED
    assert done.result.outcome.error is done.result.error
    assert [body.ends for body in done.llm.bodies] == [1]


@pytest.mark.parametrize(("last", "code"), [it[1:] for it in FAILURES], ids=[it[0] for it in FAILURES])
async def test_a_broken_stream_gives_a_plain_client_an_error_alone(
    tasks: Tasks, last: bytes | ProxyError, code: str
) -> None:
    done = await run(Answer([*BEFORE, last]), tasks=tasks)

    assert done.result.pieces == []
    assert done.result.error is not None
    assert done.result.error.code == code
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.FAILED


@PUSHED
async def test_a_replaced_stream_that_breaks_ends_the_same_way(tasks: Tasks, pushed: bool) -> None:
    def pass_on(source):  # type: ignore[no-untyped-def]
        return source

    done = await run(
        Answer([*BEFORE, UpstreamCut("reset")]),
        Asking(lambda r: r.replace(pass_on)),
        tasks=tasks,
        stream=True,
        pushed=pushed,
    )

    assert said(done.body) == "hello"
    assert error_in(done.body)["code"] == "upstream_cut"
    assert DONE not in done.body


@pytest.mark.parametrize("subscribe", [None, _watching, lambda r: r.replace(lambda source: source)])
@PUSHED
async def test_an_error_event_tells_no_secret(
    tasks: Tasks, subscribe: Callable[[Response], None] | None, pushed: bool
) -> None:
    quoting = b'data: {"error":{"message":"Key sk-canary is over its limit","type":"t","code":"c"}}\n\n'
    body = ScriptedBody([*BEFORE, quoting], tasks)
    call = exchange(tasks, body=question(stream=True))
    response = Stream(call, body, dialect=DIALECT, api=CHAT, redact=Secret("sk-canary").redact)
    if subscribe is not None:
        subscribe(response)

    flow = await flow_of(response, client_of(stream=True))
    pieces = await taken(flow, pushed=pushed and flow.pushable)
    flow.finish()

    assert b"sk-canary" not in b"".join(pieces)
    assert error_in(b"".join(pieces))["message"] == "Key *** is over its limit"


async def test_an_answer_that_cannot_be_read_for_who_wants_it_read_is_garbage(tasks: Tasks) -> None:
    done = await run(Answer(whole=b'{"choices":7}'), Asking(_watching), tasks=tasks)

    assert isinstance(done.result.error, UpstreamGarbage)
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.FAILED
