"""The event loop in which waiting takes no time."""

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from llmproxy_server.rehearsal.leaping import LeapingLoop

T = TypeVar("T")
HOUR_S = 3600.0


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        return runner.run(main)


def test_an_hour_passes_on_its_clock_and_not_on_ours() -> None:
    async def wait() -> float:
        began_s = asyncio.get_running_loop().time()
        await asyncio.sleep(HOUR_S)
        return asyncio.get_running_loop().time() - began_s

    began_s = time.monotonic()
    passed_s = run(wait())

    assert abs(passed_s - HOUR_S) < 1e-6
    assert time.monotonic() - began_s < 10


def test_timers_are_due_in_their_order() -> None:
    async def wait() -> list[float]:
        done: list[float] = []

        async def note(seconds: float) -> None:
            await asyncio.sleep(seconds)
            done.append(seconds)

        await asyncio.gather(*(note(seconds) for seconds in (300.0, 0.001, 5.0)))
        return done

    assert run(wait()) == [0.001, 5.0, 300.0]


def test_no_time_passes_while_a_thread_works() -> None:
    async def wait() -> tuple[bool, float]:
        loop, go_on = asyncio.get_running_loop(), threading.Event()
        began_s = loop.time()
        due = loop.call_later(HOUR_S, go_on.wait)
        # Who lets the thread go on is no thread of the loop: real time must pass for it.
        threading.Timer(0.05, go_on.set).start()
        done = await asyncio.to_thread(go_on.wait, 20)
        due.cancel()
        return done, loop.time() - began_s

    assert run(wait()) == (True, 0.0)


def test_what_was_sent_arrives_before_time_passes() -> None:
    async def wait() -> bytes:
        loop = asyncio.get_running_loop()
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.setblocking(False)
            async with asyncio.timeout(0.01), asyncio.TaskGroup() as group:  # by its clock
                receiving = group.create_task(loop.sock_recv(other, 10))
                await loop.sock_sendall(one, b"hello")
            return receiving.result()

    assert run(wait()) == b"hello"
