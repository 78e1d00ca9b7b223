"""An event loop of a test's own: each await of a call can be counted, each step is timed, nothing may be left in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LEAK_GRACE_S = 1.0
"""How long what runs in the background may take to end after its call has."""


class Stepped(Generic[T]):
    """Awaits *work*, and calls *at* with the count each time that it begins to wait."""

    def __init__(self, work: Coroutine[Any, Any, T], at: Callable[[int], None]) -> None:
        self._work = work
        self._at = at
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._work.__await__()
        go_on: Callable[[], Any] = partial(next, inner)
        while True:
            try:
                waited_for = go_on()
            except StopIteration as over:
                result: T = over.value
                return result
            self.steps += 1
            self._at(self.steps)
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001 - cancellation above all: it is passed on, whatever it is
                go_on = partial(inner.throw, error)
            else:
                go_on = partial(next, inner)


class TimedLoop(asyncio.SelectorEventLoop):
    """Remembers the longest time for which one step held it up, in seconds by the clock on the wall."""

    def __init__(self) -> None:
        super().__init__()
        self.longest_s = 0.0

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return super().call_soon(self._timed(callback), *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return super().call_at(when, self._timed(callback), *args, context=context)

    def _timed(self, callback: Callable[[*Ts], object]) -> Callable[[*Ts], None]:
        def timed(*args: *Ts) -> None:
            began = time.perf_counter()
            try:
                callback(*args)
            finally:
                self.longest_s = max(self.longest_s, time.perf_counter() - began)

        return timed


def in_own_loop(
    work: Callable[[], Coroutine[Any, Any, T]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> T:
    """What *work* gives, run in a loop that ends with it. RuntimeError where a loop runs already."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work())


async def what_is_left() -> list[str]:
    """The names of tasks besides this one that have not ended after a while; they are cancelled."""
    me = asyncio.current_task()
    until_s = time.monotonic() + LEAK_GRACE_S
    while others := [task for task in asyncio.all_tasks() if task is not me]:
        if (left_s := until_s - time.monotonic()) <= 0:
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=LEAK_GRACE_S)
            return sorted(_name(task) for task in others)
        await asyncio.wait(others, timeout=left_s)
    return []


def _name(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return f"{task.get_name()} ({getattr(coroutine, '__qualname__', coroutine)})"
