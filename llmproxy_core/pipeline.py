"""Composing a chain of processors and an LLM into one function, once, at load."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.errors import InternalError, ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.processor import Handler, Processor
from llmproxy_core.response import Response


class ProcessorFailed(InternalError):
    """A processor raised what is no ProxyError: a bug of it, named, the cause in the log."""

    code = "processor_failed"


@attrs.frozen
class Step:
    """A processor under the name it has in the configuration."""

    name: str
    processor: Processor


def compose(steps: Sequence[Step], send: Handler) -> Handler:
    """*steps* around *send*, the first outermost."""
    handler = send
    for depth, step in reversed(list(enumerate(steps, start=1))):
        handler = _layer(step, handler, depth)
    return handler


def _layer(step: Step, inner: Handler, depth: int) -> Handler:
    processor = step.processor

    async def layer(exchange: Exchange) -> Response:
        outside = exchange.depth
        exchange.depth = depth
        try:
            return await processor(exchange, inner)
        except ProxyError:
            raise
        except Exception as error:
            raise ProcessorFailed(f"The processor {step.name!r} failed") from error
        finally:
            exchange.depth = outside

    return layer
