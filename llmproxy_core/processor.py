"""Processors: the steps of a route, wrapped around its LLM like the layers of an onion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from llmproxy_core.exchange import Exchange
from llmproxy_core.response import Response

Handler = Callable[[Exchange], Awaitable[Response]]
"""What runs next: the rest of the chain, and in the end the LLM."""


class Processor(Protocol):
    """
    One step of a route.

    Before `call_next` it may change the request, refuse it (raise a RequestRejected) or answer itself; around it,
    time out or call again; after it, it never reads the response but states the least it needs: `on_finish`,
    `keep_body`, `watch`, `rewrite`, `replace`. One instance serves all calls of its route: nothing of a call is kept
    on it. Cancellation can strike at any await; what must be released belongs to `exchange.on_finish`.
    """

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response: ...
