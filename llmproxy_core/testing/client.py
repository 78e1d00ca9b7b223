"""A client without sockets: it asks a handler as an edge does, and takes the answer to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs

from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.processor import Handler
from llmproxy_core.relay import Flow, Whole, deliver

SETTLE_S = 5.0
"""How long the end of an answer waits for its effects."""


@attrs.define
class Result:
    """What the client of a pipeline got, and how the exchange ended. *error*: raised, or the end of the stream."""

    body: bytes
    outcome: Outcome
    exchange: Exchange
    pieces: list[bytes] = attrs.field(factory=list)
    error: ProxyError | None = None
    content_type: str = ""


async def serve(
    exchange: Exchange,
    handler: Handler,
    *,
    pushed: bool = False,
    on_piece: Callable[[bytes], None] = lambda piece: None,
) -> Result:
    """
    Do for *exchange* what an edge does; *pushed* takes a stream by `attach` instead of reading it.

    Each piece of the answer is shown to *on_piece* as it comes. Cancelling it is the client going away.
    """
    result = Result(b"", Outcome(End.FAILED), exchange)

    def take(piece: bytes) -> None:
        result.pieces.append(piece)
        on_piece(piece)

    try:
        response = await handler(exchange)
        assert exchange.client is not None
        delivery = await deliver(response, exchange.client)
        if isinstance(delivery, Whole):
            exchange.finish(End.COMPLETED)
            take(delivery.body)
        else:
            await (_push(delivery, take) if pushed and delivery.pushable else _pull(delivery, take))
            delivery.finish()
            exchange.finish(End.of(delivery.error), delivery.error)  # the response may be another exchange's
            result.error = delivery.error
        result.content_type = delivery.content_type
    except ProxyError as error:
        result.error = error
        exchange.finish(End.of(error), error)
    except asyncio.CancelledError:
        exchange.finish(End.ABANDONED)
        raise
    await exchange.settled(SETTLE_S)
    assert exchange.outcome is not None
    result.body, result.outcome = b"".join(result.pieces), exchange.outcome
    return result


async def _pull(flow: Flow, take: Callable[[bytes], None]) -> None:
    async for piece in flow.pieces():
        take(piece)


async def _push(flow: Flow, take: Callable[[bytes], None]) -> None:
    over = asyncio.Event()
    flow.attach(take, over.set)
    await over.wait()
