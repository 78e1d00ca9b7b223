"""Composing a chain of processors and an LLM into one function, once, at load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

import attrs

from llmproxy_core.errors import (
    InternalError,
    ProcessorFailed,
    ProcessorTimeout,
    ProxyError,
    RequestRejected,
    raise_unless_bug,
)
from llmproxy_core.exchange import Exchange
from llmproxy_core.layer import Layer, running
from llmproxy_core.outcome import End
from llmproxy_core.processor import Handler, Processor
from llmproxy_core.response import Reply, Response, Stream

_log = logging.getLogger("llmproxy")
_RESPONSES = (Reply, Stream)


@attrs.frozen
class Step:
    """A processor under the name it has in the configuration, with what is done when it fails."""

    name: str
    processor: Processor
    timeout_s: float | None = None
    """
    Seconds it may take for a call, what it waits for inside `call_next` not counted.

    It is cancelled then. One that swallows this is waited for: what it answers in the end is its answer.
    """
    passes_over: bool = False
    """
    Whether the call goes on without it when it raises what is no ProxyError, or takes too long.

    A watcher of its that fails is left out as well. A filter or a replacement is not: what it was to take away could
    reach the client.
    """


def compose(steps: Sequence[Step], send: Handler, around: Callable[[str, Handler], Handler] | None = None) -> Handler:
    """*steps* around *send*, the first outermost. *around* is `Services.around`, told of *send* as ""."""
    handler = _of_llm(send)
    if around is not None:
        handler = around("", handler)
    for depth, step in reversed(list(enumerate(steps, start=1))):
        layer = Layer(step.name, depth, step.passes_over)
        guarded = step.timeout_s is not None or step.passes_over
        handler = _guarded(step, handler, layer) if guarded else _plain(step, handler, layer)
        if around is not None:
            handler = around(step.name, handler)
    return handler


def _of_llm(send: Handler) -> Handler:
    """*send*, whose bugs are not those of the processor around it."""

    async def run(exchange: Exchange) -> Response:
        try:
            response = await send(exchange)
            return response if isinstance(response, _RESPONSES) else _response(response)
        except ProxyError:
            raise
        except BaseException as error:
            raise_unless_bug(error)
            raise InternalError("The LLM's provider plugin failed") from error

    return run


def _plain(step: Step, inner: Handler, layer: Layer) -> Handler:
    processor = step.processor

    async def run(exchange: Exchange) -> Response:
        outside = running.get()
        running.set(layer)
        try:
            response = await processor(exchange, inner)
            if response.__class__ is Stream and response.outcome is not None:
                _check_open(response, exchange)
            return response if isinstance(response, _RESPONSES) else _response(response)
        except ProxyError:
            raise
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised below
            fault = _verdict(error) or _failure(step, error)
        finally:
            running.set(outside)
        try:
            raise fault  # out of the except clause: what a group holds must not hold the group
        finally:
            del fault  # nor its own traceback

    return run


def _guarded(step: Step, inner: Handler, layer: Layer) -> Handler:
    async def run(exchange: Exchange) -> Response:
        outside, request = running.get(), exchange.request
        inside = _Inside(inner, exchange, step.timeout_s)
        running.set(layer)
        try:
            response = _response(await inside.run(step.processor))
            _check_open(response, exchange)
            return response
        except ProxyError:
            raise
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised below, or logged
            fault = _verdict(error)
            if fault is None:
                fault = _failure(step, error, timed_out=inside.timed_out)
                if step.passes_over:
                    _log.error("%s; exchange %s goes on without it", fault.message, exchange.id, exc_info=error)
                    fault = None
        finally:
            running.set(outside)
        if fault is None:
            exchange.request = request
            return await inside.without(layer)
        try:
            raise fault
        finally:
            del fault

    return run


class _Inside:
    """What runs inside one processor for one call: the clock stands meanwhile, and its result is remembered."""

    __slots__ = ("_clock", "_error", "_exchange", "_inner", "_left_s", "_response", "_running", "timed_out")

    def __init__(self, inner: Handler, exchange: Exchange, timeout_s: float | None) -> None:
        self._inner = inner
        self._exchange = exchange
        self._left_s = timeout_s
        self._clock: asyncio.Timeout | None = None
        self._running = 0
        self._response: Response | None = None
        self._error: ProxyError | None = None
        self.timed_out = False

    async def run(self, processor: Processor) -> Response:
        """What *processor* answers; TimeoutError, with *timed_out*, when that took it too long."""
        if self._left_s is None:
            return await processor(self._exchange, self)
        clock = self._clock = asyncio.timeout(self._left_s)
        try:
            async with clock:
                return await processor(self._exchange, self)
        finally:
            self.timed_out = clock.expired()
            self._clock = None  # a task of the processor's may go on for long

    async def __call__(self, exchange: Exchange) -> Response:
        """The `call_next` of the processor. What it sends in a child's name is not the answer to the call."""
        own = exchange is self._exchange
        self._stop()
        try:
            response = await self._inner(exchange)
        except ProxyError as error:
            if own:
                self._error = error
            raise
        finally:
            self._go_on()
        if own:
            self._response, self._error = response, None
        return response

    def _stop(self) -> None:
        self._running += 1
        clock = self._clock
        if clock is not None and (until_s := clock.when()) is not None and not clock.expired():
            self._left_s = until_s - asyncio.get_running_loop().time()
            clock.reschedule(None)

    def _go_on(self) -> None:
        self._running -= 1
        clock = self._clock
        if not self._running and clock is not None and self._left_s is not None and not clock.expired():
            clock.reschedule(asyncio.get_running_loop().time() + self._left_s)

    async def without(self, layer: Layer) -> Response:
        """What there would be without the processor: what it was given, or what it never asked for."""
        if self._error is not None:
            raise self._error
        response = self._response
        if response is None or (response.outcome is not None and response.outcome.end is not End.COMPLETED):
            return await self._inner(self._exchange)
        response.forget(layer)
        return response


def _response(answer: object) -> Response:
    if isinstance(answer, _RESPONSES):
        return answer
    raise TypeError(f"expected a Response, got {type(answer).__name__}")


def _check_open(response: Response, exchange: Exchange) -> None:
    """RuntimeError when the processor of *exchange* answers with a stream that it has ended: nobody can read it."""
    over = isinstance(response, Stream) and response.outcome is not None and response.outcome.end is not End.COMPLETED
    if over and exchange.outcome is None:
        raise RuntimeError("the stream that it answers with is over, perhaps with the exchange that it was asked in")


def _verdict(error: BaseException) -> BaseException | None:
    """What passes as it is: the call's own cancellation, and what stands for somebody outside; None for a bug."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        # One that nobody asked for is that of a task of the processor's own, which let it escape.
        return error if task is not None and task.cancelling() else None
    if not isinstance(error, BaseExceptionGroup):
        return None
    raised = list(_leaves(error))
    refusal = next((it for it in raised if isinstance(it, RequestRejected)), None)
    return refusal or (raised[0] if all(isinstance(it, ProxyError) for it in raised) else None)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """What a TaskGroup wrapped up."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _failure(step: Step, bug: BaseException, *, timed_out: bool = False) -> ProcessorFailed:
    """The error that names the processor; the bug is its cause, for the log."""
    failure = (
        ProcessorTimeout(f"The processor {step.name!r} took longer than {step.timeout_s} s")
        if timed_out
        else ProcessorFailed(f"The processor {step.name!r} failed")
    )
    failure.__cause__ = bug
    return failure
