"""One upstream call for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmproxy_core import (
    End,
    Exchange,
    Handler,
    InternalError,
    ProxyError,
    Response,
    Shared,
    Tasks,
    share,
)

Landed = Callable[[Response], None]
"""Told of the response once it is here, before anybody reads it."""


class Flight:
    """
    A call under way that several exchanges wait for, or read.

    It has an exchange of its own, billed to the first caller, and belongs to none of those who wait: it ends early
    only when the last of them has left.
    """

    def __init__(self, exchange: Exchange, call_next: Handler, landed: Landed, *, max_bytes: int, tasks: Tasks) -> None:
        """*exchange* is detached from the first caller's."""
        self.exchange = exchange
        self._call_next = call_next
        self._landed = landed
        self._max_bytes = max_bytes
        self._tasks = tasks
        self._shared: Shared | None = None
        self._waiting: dict[asyncio.Future[Response], Exchange] = {}
        self._task = tasks.start(self._run(), name="cache flight")

    @property
    def can_be_joined(self) -> bool:
        """Whether one more would get all of the answer."""
        return self.exchange.outcome is None if self._shared is None else self._shared.open

    async def join(self, exchange: Exchange) -> Response:
        """The answer for *exchange*, from its first event on. Raises what the call raises."""
        if self._shared is not None:
            return self._shared.join(exchange)
        response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[response] = exchange
        try:
            return await response
        finally:
            self._waiting.pop(response, None)
            if not self._waiting and self._shared is None:
                self.exchange.finish(End.ABANDONED)  # first: nobody joins what is being stopped
                self._task.cancel()  # of one that is over this does nothing

    async def _run(self) -> None:
        try:
            response = await self._call_next(self.exchange)
            self._landed(response)
            shared = await share(response, max_bytes=self._max_bytes, tasks=self._tasks)
        except asyncio.CancelledError:
            self.exchange.finish(End.ABANDONED)
            self._fail(InternalError("The shared call was stopped"))
            raise
        except ProxyError as error:
            self.exchange.finish(End.of(error), error)
            self._fail(error)
        except Exception as bug:  # noqa: BLE001 - whoever waits must learn of it, too
            failure = InternalError("The shared call failed")
            failure.__cause__ = bug
            self.exchange.finish(End.FAILED, failure)
            self._fail(failure)
        else:
            self._board(shared)

    def _board(self, shared: Shared) -> None:
        """Let all join who wait: here and now, before a byte is read, so that nobody comes too late."""
        self._shared = shared
        for response, exchange in self._waiting.items():
            if not response.done():
                response.set_result(shared.join(exchange))
        shared.close()  # if all had left

    def _fail(self, error: ProxyError) -> None:
        for response in self._waiting:
            if not response.done():
                response.set_exception(error)
