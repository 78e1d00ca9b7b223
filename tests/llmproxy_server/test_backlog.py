"""When a call that is over is written down."""

from __future__ import annotations

import asyncio

import pytest

from llmproxy_server.backlog import MOST, SMALL_BYTES, Backlog
from tests.exact import ask
from tests.llmproxy_server.metrics.scraping import MODEL, Scrape, chat, priced_at
from tests.proxy import Proxy
from tests.upstream import Upstream, chat_chunk, completion, reply
from tests.upstream import stream as stream_of


class Call:
    def __init__(self, written: list[Call]) -> None:
        self._written = written
        self.done = asyncio.Event()

    def write(self) -> None:
        self._written.append(self)
        self.done.set()


async def test_calls_of_one_moment_are_written_down_together_in_their_order() -> None:
    written: list[Call] = []
    backlog, calls = Backlog(), [Call(written) for _ in range(3)]

    for call in calls:
        backlog.add(call)
    at_once = list(written)
    await calls[0].done.wait()

    assert at_once == []
    assert written == calls


async def test_many_calls_are_written_down_before_their_moment_is_over() -> None:
    written: list[Call] = []
    backlog, calls = Backlog(), [Call(written) for _ in range(MOST + 1)]

    for call in calls:
        backlog.add(call)

    assert written == calls[:MOST]
    await calls[MOST].done.wait()
    assert written == calls


@pytest.mark.parametrize("size", [SMALL_BYTES + 1, -1], ids=["much", "unknown"])
async def test_a_call_that_holds_much_is_not_kept_waiting_nor_are_those_before_it(size: int) -> None:
    written: list[Call] = []
    backlog, calls = Backlog(), [Call(written), Call(written)]

    backlog.add(calls[0], SMALL_BYTES)
    assert written == []
    backlog.add(calls[1], size)

    assert written == calls


async def test_what_is_added_while_others_are_written_down_is_written_down_too() -> None:
    written: list[Call] = []
    backlog, second = Backlog(), Call(written)

    class First(Call):
        def write(self) -> None:
            super().write()
            backlog.add(second)

    first = First(written)
    backlog.add(first)
    await second.done.wait()

    assert written == [first, second]


async def test_a_call_that_cannot_be_written_down_loses_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def write(self) -> None:
            raise ZeroDivisionError

    written: list[Call] = []
    backlog, other = Backlog(), Call(written)

    backlog.add(Broken())
    backlog.add(other)
    await other.done.wait()

    assert written == [other]
    assert [record.message for record in caplog.records] == ["a call could not be written down"]


def test_without_an_event_loop_a_call_is_written_down_at_once() -> None:
    class Written:
        count = 0

        def write(self) -> None:
            self.count += 1

    call = Written()
    Backlog().add(call)

    assert call.count == 1


async def test_who_asks_for_the_metrics_is_told_of_every_call_that_was_answered() -> None:
    async with Upstream(reply(completion("Hi"))) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        for count in range(1, 21):
            await chat(proxy)
            seen = Scrape.of((await ask("GET", f"{proxy.url}/api/metrics")).body.decode())

            assert seen("llmproxy_requests_total", model=MODEL, status="200") == count
            assert seen("llmproxy_active_requests", model=MODEL) == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("calls", "length"), [(1, 2 * SMALL_BYTES), (3 * MOST, 2)], ids=["a long one", "many"])
async def test_whenever_a_call_is_written_down_its_status_is_what_was_sent(
    calls: int, length: int, stream: bool
) -> None:
    text = "x" * length
    answer = stream_of(chat_chunk(text), chat_chunk(None, finish="stop")) if stream else reply(completion(text))
    async with Upstream(answer) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        await asyncio.gather(*(chat(proxy, stream=stream, padding=text) for _ in range(calls)))
        seen = Scrape.of((await ask("GET", f"{proxy.url}/api/metrics")).body.decode())

    assert seen.values("llmproxy_requests_total", "status") == {"200"}
    assert seen("llmproxy_requests_total", model=MODEL, status="200") == calls
