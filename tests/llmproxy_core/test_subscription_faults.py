"""A bug in a watcher, filter or replacement: whose it is, is told; its cause is in the log, once."""

from collections.abc import AsyncIterator, Callable

import pytest

from llmproxy_core import GuardrailBlocked, ProcessorFailed, Response, Tasks
from llmproxy_core.chat import ChatEvent, TextDelta
from llmproxy_core.pipeline import Step
from tests.llmproxy_core.chains import BUG, RaisingFilter, RaisingWatcher, lenient, run_steps
from tests.llmproxy_core.conversation import STREAMED, WAYS, Asking, Way, error_in, said
from tests.llmproxy_core.filters import Logging, Upper

Ask = Callable[[Response], None]


def _bug(*_: object) -> None:
    raise BUG


def _watch(response: Response) -> None:
    response.watch(lambda channel: RaisingWatcher(BUG, "hello"))


def _watch_at_once(response: Response) -> None:
    response.watch(lambda channel: RaisingWatcher(BUG))


def _make_watcher(response: Response) -> None:
    response.watch(_bug)


class LateWatcher:
    def feed(self, text: str) -> None: ...

    def end(self) -> None:
        raise BUG


def _watch_to_the_end(response: Response) -> None:
    response.watch(lambda channel: LateWatcher())


def _filter(response: Response) -> None:
    response.rewrite(lambda channel: RaisingFilter(BUG, "hello"))


def _make_filter(response: Response) -> None:
    response.rewrite(_bug)


class LateFilter(Upper):
    def flush(self) -> str:
        raise BUG


class Forgetful:
    def feed(self, text: str) -> str:
        return None  # type: ignore[return-value]  # as an author forgets it

    def flush(self) -> str:
        return ""


def _forget_to_return(response: Response) -> None:
    response.rewrite(lambda channel: Forgetful())


def _filter_to_the_end(response: Response) -> None:
    response.rewrite(lambda channel: LateFilter())


async def _broken(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    heard = ""
    async for event in events:
        heard += event.text if isinstance(event, TextDelta) else ""
        if heard == "hello":
            raise BUG
        yield event


def _replace(response: Response) -> None:
    response.replace(_broken)


def _replace_by_nothing(response: Response) -> None:
    response.replace(_bug)  # type: ignore[arg-type]


WATCHERS = [_watch, _watch_at_once, _make_watcher, _watch_to_the_end]
OTHERS = [_filter, _make_filter, _filter_to_the_end, _replace, _replace_by_nothing]
IN_THE_MIDDLE = [_watch, _filter, _replace]
"""What lets the first of two pieces of text pass."""


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("ask", WATCHERS + OTHERS)
async def test_whoever_made_it_is_named_and_its_cause_is_logged_once(
    tasks: Tasks, ask: Ask, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    ran = await run_steps(way, Step("outer", Asking(lambda response: None)), Step("buggy", Asking(ask)), tasks=tasks)

    assert isinstance(ran.error, ProcessorFailed)
    assert (ran.error.status, ran.error.code) == (500, "processor_failed")
    assert ran.error.message == "The processor 'buggy' failed on this answer"
    assert ran.error.__cause__ is None
    (record,) = caplog.records
    assert record.getMessage() == "The processor 'buggy' failed on the answer to exchange test"
    assert record.exc_info is not None
    assert record.exc_info[1] is BUG
    assert ran.call.outcome is not None
    assert ran.call.outcome.error is ran.error


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_filter_that_forgets_to_return_is_named_too(tasks: Tasks, way: Way) -> None:
    ran = await run_steps(way, Step("buggy", Asking(_forget_to_return)), tasks=tasks)

    assert isinstance(ran.error, ProcessorFailed)
    assert ran.error.message == "The processor 'buggy' failed on this answer"


@pytest.mark.parametrize("way", STREAMED, ids=str)
@pytest.mark.parametrize("ask", IN_THE_MIDDLE)
async def test_in_the_middle_of_a_stream_it_is_told_after_what_was_good(tasks: Tasks, ask: Ask, way: Way) -> None:
    ran = await run_steps(way, Step("buggy", Asking(ask)), tasks=tasks)

    assert said(ran.body) == "hel"
    assert error_in(ran.body)["code"] == "processor_failed"
    assert error_in(ran.body)["message"] == "The processor 'buggy' failed on this answer"
    assert b"[DONE]" not in ran.body
    assert b"Zero" not in ran.body
    assert b"Traceback" not in ran.body


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("ask", WATCHERS)
async def test_a_watcher_of_one_that_may_fail_is_left_out(
    tasks: Tasks, ask: Ask, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    below, above = Logging(), Logging()

    ran = await run_steps(
        way,
        Step("above", Asking(lambda response: response.watch(above))),
        lenient(Asking(ask)),
        Step("below", Asking(lambda response: response.watch(below))),
        tasks=tasks,
    )

    assert (said(ran.body), ran.error) == ("hello", None)
    for log in (below, above):
        assert "".join(text or "" for _, text in log.seen) == "hello"
        assert log.seen[-1][1] is None  # and its end
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "The processor 'lenient' failed on the answer to exchange test, which goes on"
    )


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_others_that_it_asked_for_go_on(tasks: Tasks, way: Way) -> None:
    def ask(response: Response) -> None:
        response.watch(lambda channel: RaisingWatcher(BUG))
        response.rewrite(lambda channel: Upper())

    ran = await run_steps(way, lenient(Asking(ask)), tasks=tasks)

    assert (said(ran.body), ran.error) == ("HELLO", None)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("ask", OTHERS)
async def test_a_filter_or_replacement_is_not_left_out(tasks: Tasks, ask: Ask, way: Way) -> None:
    """Without it, what it would have taken away could reach the client."""
    ran = await run_steps(way, lenient(Asking(ask)), tasks=tasks)

    assert isinstance(ran.error, ProcessorFailed)
    assert "'lenient'" in ran.error.message


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_verdict_is_never_passed_over(tasks: Tasks, way: Way) -> None:
    blocked = GuardrailBlocked("no")

    def ask(response: Response) -> None:
        response.watch(lambda channel: RaisingWatcher(blocked, "hello"))

    ran = await run_steps(way, lenient(Asking(ask)), tasks=tasks)

    assert ran.error is blocked
