"""Background tasks with an owner: the one place that starts a task outside a TaskGroup."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from llmproxy_core.errors import forget_tracebacks

_log = logging.getLogger("llmproxy")
T = TypeVar("T")


class _Contained(Coroutine[Any, Any, T]):
    """
    *inner*, whose SystemExit is a bug as any other: asyncio would end the loop by it, and so the process.

    Its cancellation tells of no frames: the task keeps it, and what is in them would hold the task, in a circle.

    No coroutine that awaits it: cancelled before its first step, that would never begin it.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Coroutine[Any, Any, T]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        except SystemExit as error:
            raise RuntimeError("a task tried to end the process") from error
        except asyncio.CancelledError as cancelled:
            forget_tracebacks(cancelled)
            raise

    def throw(self, *raised: Any) -> Any:
        try:
            return self._inner.throw(*raised)
        except SystemExit as error:
            raise RuntimeError("a task tried to end the process") from error
        except asyncio.CancelledError as cancelled:
            del raised  # perhaps the same, which would hold itself by this frame
            forget_tracebacks(cancelled)
            raise

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._inner.__await__()


class Tasks:
    """Tasks that outlive their caller. Their errors are logged once; `drain` waits for them, then cancels."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run *coroutine* now, with a reference kept until it ends (the loop itself keeps only weak ones)."""
        task = asyncio.get_running_loop().create_task(_Contained(coroutine), name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background task %s failed", task.get_name(), exc_info=error)

    def __len__(self) -> int:
        return len(self._running)

    async def drain(self, timeout_s: float) -> None:
        """
        Wait up to *timeout_s* seconds for all tasks, then cancel what is left and wait for that.

        What the cancelled ones start as they end (settlements) gets the same time once more.
        """
        for _ in range(2):
            await self._wait(timeout_s)
            await self._cancel()
        while self._running:
            await self._cancel()

    async def _wait(self, timeout_s: float) -> None:
        """Wait for all tasks, those started meanwhile too."""
        clock = asyncio.get_running_loop().time
        until_s = clock() + timeout_s
        while self._running and (left_s := until_s - clock()) > 0:
            await asyncio.wait(self._running, timeout=left_s)

    async def _cancel(self) -> None:
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)  # also for what follows their ends: `gather` takes no turn where all have ended
