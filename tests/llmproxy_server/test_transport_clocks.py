"""The time-outs of an answer's body: each on its own, and only for an upstream that is waited for."""

import asyncio
import socket

import pytest

from llmproxy_core.errors import UpstreamTimeout
from llmproxy_core.llm import Timeouts
from tests.llmproxy_server.transporting import Collected, call, over, post, read, rest, soon, transporting
from tests.upstream import (
    Call,
    Chunk,
    End,
    Head,
    Stall,
    Step,
    Upstream,
    Wait,
)

__all__ = ["over"]
pytestmark = pytest.mark.usefixtures("over")

SHORT_S = 0.1


async def test_the_first_byte_time_out_after_the_head() -> None:
    async with Upstream([Head(), Stall()]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, SHORT_S, None, None))

        with pytest.raises(UpstreamTimeout) as caught:
            async with asyncio.timeout(2):
                await body.read()

        assert (caught.value.status, caught.value.code) == (504, "upstream_timeout_first_byte")
        await soon((await upstream.received()).gone)
        assert transport.connections_in_use == 0


async def test_the_idle_time_out() -> None:
    async with Upstream([Head(), Chunk(b"x"), Stall()]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, None, SHORT_S, None))
        assert await read(body) == b"x"

        with pytest.raises(UpstreamTimeout) as caught:
            async with asyncio.timeout(2):
                await body.read()

        assert (caught.value.status, caught.value.code) == (504, "upstream_timeout_idle")
        assert caught.value.message == f"127.0.0.1:{upstream.port} sent nothing for 0.1 seconds within its answer"
        await soon((await upstream.received()).gone)
        assert transport.connections_in_use == 0


@pytest.mark.parametrize("reading", [True, False], ids=["while reading", "while nobody reads"])
async def test_the_total_time_out(reading: bool) -> None:
    async with Upstream([Head(), Chunk(b"x"), Stall()]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, None, None, SHORT_S))
        if not reading:
            await asyncio.wait_for((await upstream.received()).gone.wait(), 2)
        assert await read(body) == b"x"

        with pytest.raises(UpstreamTimeout) as caught:
            async with asyncio.timeout(2):
                await body.read()

        assert (caught.value.status, caught.value.code) == (504, "upstream_timeout_total")
        await soon((await upstream.received()).gone)
        assert transport.connections_in_use == 0


@pytest.mark.parametrize("total_s", [None, 60])
async def test_what_is_left_of_the_whole_exchange_ends_the_call_as_its_deadline(total_s: float | None) -> None:
    async with Upstream([Head(), Chunk(b"x"), Stall()]) as upstream, transporting() as transport:
        request = post(upstream.base_url)
        request.left_s = SHORT_S
        body = await call(transport, request, Timeouts(None, None, None, total_s))
        assert await read(body) == b"x"

        with pytest.raises(UpstreamTimeout) as caught:
            async with asyncio.timeout(2):
                await body.read()

        assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")
        await soon((await upstream.received()).gone)


@pytest.mark.parametrize("connect_s", [None, 5])
async def test_a_call_whose_time_is_over_already_ends_at_once(connect_s: float | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        request = post(f"http://127.0.0.1:{silent.getsockname()[1]}")
        request.left_s = -5.0

        async with transporting() as transport, asyncio.timeout(2):
            with pytest.raises(UpstreamTimeout) as caught:
                await transport.open(request, Timeouts(connect_s, None, None, None))

    assert caught.value.code == "deadline_exceeded"


async def test_the_total_time_out_counts_from_the_start_of_the_call() -> None:
    async def slow_head(call: Call) -> None:
        await asyncio.sleep(3 * SHORT_S)  # what is tested is time
        await call.play(Head(), Chunk(b"x"), Stall())

    async with Upstream(slow_head) as upstream, transporting() as transport:
        began = asyncio.get_running_loop().time()
        body = await call(transport, post(upstream.base_url), Timeouts(None, None, None, 4 * SHORT_S))
        await read(body)
        with pytest.raises(UpstreamTimeout):
            await read(body)

        assert asyncio.get_running_loop().time() - began < 6 * SHORT_S


async def test_a_pushed_body_has_the_same_clocks() -> None:
    async with Upstream([Head(), Chunk(b"x"), Stall()]) as upstream, transporting() as transport:
        body, sink = await call(transport, post(upstream.base_url), Timeouts(None, None, SHORT_S, None)), Collected()
        body.attach(sink)
        await asyncio.wait_for(sink.ended.wait(), 2)

    assert sink.data == b"x"
    assert isinstance(sink.ends[0], UpstreamTimeout)
    assert sink.ends[0].code == "upstream_timeout_idle"


@pytest.mark.parametrize("taken", [0, 1], ids=["before the first read", "between two reads"])
async def test_a_slow_reader_is_not_an_idle_upstream(taken: int) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    script: list[Step] = [Head(), Wait(first), Chunk(b"1"), Wait(second), Chunk(b"2"), End()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, SHORT_S, SHORT_S, None))
        if taken:
            reading = asyncio.Task(body.read())
            await asyncio.sleep(0)  # it waits
            first.set()
            assert await reading == b"1"
        first.set()
        await asyncio.sleep(3 * SHORT_S)  # what is tested is time
        second.set()

        assert await rest(body) == b"12"[taken:]


async def test_an_event_loop_held_up_is_not_an_idle_upstream() -> None:
    loop = asyncio.get_running_loop()

    async def late_for_us(call: Call) -> None:
        await call.play(Head(), Chunk(b"1"))
        await asyncio.sleep(SHORT_S / 2)
        call.write_body(b"2")
        held_until = loop.time() + SHORT_S
        while loop.time() < held_until:
            pass
        await call.play(Stall())

    async with Upstream(late_for_us) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, None, SHORT_S, 4 * SHORT_S))
        assert await read(body) == b"1"

        assert await read(body) == b"2"

        # The total goes on, though nobody reads.
        await asyncio.wait_for((await upstream.received()).gone.wait(), 2)
        with pytest.raises(UpstreamTimeout) as caught:
            await read(body)
        assert caught.value.code == "upstream_timeout_total"


async def test_a_paused_push_is_not_an_idle_upstream() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(b"1"), Wait(go_on), Chunk(b"2"), End()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, SHORT_S, SHORT_S, None))
        sink = Collected(pausing=body)
        body.attach(sink)
        await soon(sink.fed)
        await asyncio.sleep(3 * SHORT_S)  # what is tested is time
        go_on.set()
        sink.pausing = None
        body.resume()
        await soon(sink.ended)

    assert (sink.data, sink.ends) == (b"12", [None])


async def test_the_idle_time_begins_anew_with_each_read() -> None:
    async def drip(call: Call) -> None:
        await call.play(Head())
        for _ in range(8):  # together longer than the idle time, each much shorter
            await asyncio.sleep(SHORT_S / 2)
            await call.play(Chunk(b"x"))
        await call.play(End())

    async with Upstream(drip) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, None, 2.5 * SHORT_S, None))

        assert await rest(body) == b"x" * 8


async def test_the_idle_time_of_a_pushed_body_begins_anew_with_each_piece() -> None:
    async def trickle(call: Call) -> None:
        await call.play(Head())
        for _ in range(8):  # together longer than the idle time, each much shorter
            await call.play(Chunk(b"x"))
            await asyncio.sleep(SHORT_S / 2)  # what is tested is time
        await call.play(Stall())

    async with Upstream(trickle) as upstream, transporting() as transport:
        # The first byte's clock is the later one: the other must be told of when the first byte is here.
        body, sink = await call(transport, post(upstream.base_url), Timeouts(None, 60, 2 * SHORT_S, None)), Collected()
        body.attach(sink)
        await soon(sink.ended)

    assert sink.data == b"x" * 8
    assert [type(end) for end in sink.ends] == [UpstreamTimeout]


async def test_the_first_byte_may_take_longer_than_the_idle_time() -> None:
    async def late(call: Call) -> None:
        await call.play(Head())
        await asyncio.sleep(2 * SHORT_S)  # what is tested is time
        await call.play(Chunk(b"x"), End())

    async with Upstream(late) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts(None, 2, SHORT_S / 2, None))

        assert await rest(body) == b"x"


async def test_a_body_costs_no_timer_per_read(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers = 0
    call_at = loop.call_at

    def counted(*args: object, **kwargs: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*args, **kwargs)  # type: ignore[arg-type]

    async with Upstream([Head(), *[Chunk(b"x")] * 500, End()]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts())
        monkeypatch.setattr(loop, "call_at", counted)
        reads = 0
        while await body.read():
            reads += 1
        monkeypatch.undo()

    assert reads > 400  # the kernel may join a few
    assert timers <= 10
