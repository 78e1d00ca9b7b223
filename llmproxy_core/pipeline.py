"""Composing a chain of processors and an LLM into one function, once, at load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import attrs

from llmproxy_core.errors import ProcessorFailed, ProcessorTimeout, ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.layer import Layer
from llmproxy_core.outcome import End
from llmproxy_core.processor import Handler, Processor
from llmproxy_core.response import Response

_log = logging.getLogger("llmproxy")


@attrs.frozen
class Step:
    """A processor under the name it has in the configuration, with what is done when it fails."""

    name: str
    processor: Processor
    timeout_s: float | None = None
    """Seconds it may take for a call, what it waits for inside `call_next` not counted."""
    passes_over: bool = False
    """Whether the call goes on without it when it raises what is no ProxyError, or takes too long."""


def compose(steps: Sequence[Step], send: Handler) -> Handler:
    """*steps* around *send*, the first outermost."""
    handler = send
    for depth, step in reversed(list(enumerate(steps, start=1))):
        layer = Layer(step.name, depth, step.passes_over)
        guarded = step.timeout_s is not None or step.passes_over
        handler = _guarded(step, handler, layer) if guarded else _plain(step, handler, layer)
    return handler


def _plain(step: Step, inner: Handler, layer: Layer) -> Handler:
    processor = step.processor

    async def run(exchange: Exchange) -> Response:
        outside = exchange.layer
        exchange.layer = layer
        try:
            return await processor(exchange, inner)
        except ProxyError:
            raise
        except Exception as error:
            raise ProcessorFailed(f"The processor {step.name!r} failed") from error
        finally:
            exchange.layer = outside

    return run


def _guarded(step: Step, inner: Handler, layer: Layer) -> Handler:
    async def run(exchange: Exchange) -> Response:
        outside, request = exchange.layer, exchange.request
        exchange.layer = layer
        inside = _Inside(inner, step.timeout_s)
        try:
            return await inside.run(step, exchange)
        except ProcessorFailed as failure:
            if not step.passes_over or inside.failed_with is failure:
                raise
            exchange.request = request
            return await inside.without(exchange, layer, failure)
        finally:
            exchange.layer = outside

    return run


class _Inside:
    """What runs inside one processor for one call: the clock stands meanwhile, and its result is remembered."""

    __slots__ = ("_clock", "_inner", "_left_s", "_running", "failed_with", "response")

    def __init__(self, inner: Handler, timeout_s: float | None) -> None:
        self._inner = inner
        self._left_s = timeout_s
        self._clock: asyncio.Timeout | None = None
        self._running = 0
        self.response: Response | None = None
        self.failed_with: BaseException | None = None
        """What the last call of `call_next` raised."""

    async def run(self, step: Step, exchange: Exchange) -> Response:
        """The processor's answer; ProcessorFailed or ProcessorTimeout for what is its own fault."""
        self._clock = clock = asyncio.timeout(self._left_s)
        try:
            async with clock:
                return await step.processor(exchange, self)
        except ProxyError:
            raise
        except TimeoutError as error:
            if not clock.expired():
                raise ProcessorFailed(f"The processor {step.name!r} failed") from error
            raise ProcessorTimeout(f"The processor {step.name!r} took longer than {step.timeout_s} s") from error
        except Exception as error:
            raise ProcessorFailed(f"The processor {step.name!r} failed") from error

    async def __call__(self, exchange: Exchange) -> Response:
        self._stop()
        try:
            self.response = response = await self._inner(exchange)
        except BaseException as error:
            self.failed_with = error
            raise
        else:
            self.failed_with = None
            return response
        finally:
            self._go_on()

    def _stop(self) -> None:
        self._running += 1
        clock = self._clock
        if self._running == 1 and clock is not None and (until_s := clock.when()) is not None and not clock.expired():
            self._left_s = until_s - asyncio.get_running_loop().time()
            clock.reschedule(None)

    def _go_on(self) -> None:
        self._running -= 1
        clock = self._clock
        if not self._running and clock is not None and self._left_s is not None and not clock.expired():
            clock.reschedule(asyncio.get_running_loop().time() + self._left_s)

    async def without(self, exchange: Exchange, layer: Layer, failure: ProcessorFailed) -> Response:
        """What there would be without the processor: the answer that it was given, or the one it never asked for."""
        _log.error("%s; exchange %s goes on without it", failure.message, exchange.id, exc_info=failure.__cause__)
        if isinstance(self.failed_with, ProxyError):
            raise self.failed_with
        response = self.response
        if response is None or (response.outcome is not None and response.outcome.end is not End.COMPLETED):
            return await self._inner(exchange)
        response.forget(layer)
        return response
