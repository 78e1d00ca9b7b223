"""
What goes on of a call whose client has left: its route may have the upstream's answer read to its end.

    on_disconnect          the upstream's answer
    cancel                 is given up at once
    drain                  is read to its end
    { drain_up_to_usd }    is read while the call has cost less than that; given up where no price is known

The call goes on as it was, plain, pulled or pushed, but for its client: in the place of the one that left stands one
that takes all at once and keeps nothing. So the upstream is never held up, all that was subscribed to the answer sees
it to its end, and nothing of this costs anything while clients stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain

from llmproxy_core.config_tables import DrainUpTo, OnDisconnect
from llmproxy_core.exchange import Exchange
from llmproxy_core.money import Money
from llmproxy_core.relay import Flow
from llmproxy_server.door_request import Client

PERIOD_S, MOST_S = 0.1, 1.0
"""How often it is looked at what a call has cost that is drained up to an amount: at most, and at least."""
_PART = 20
"""In between, one part in so many of the time goes into that: a long question takes a while to count."""


def drains(policy: OnDisconnect, exchange: Exchange, flow: Flow | None) -> bool:
    """
    Whether the answer of *exchange* is read on by *policy*; *flow* is what there is of it, None while it is awaited.

    Only what an upstream works on, and this exchange is billed for: a call that has not been made is not made for
    nobody, one that waits between two tries makes no other, and one that has joined the call of another pays nothing.
    An amount needs a price and something to count: what is not streamed tells nothing of its cost until all is spent.
    """
    if policy == "cancel" or (flow is None and isinstance(policy, DrainUpTo)):
        return False
    attempts = exchange.attempts if flow is None else chain(exchange.attempts, flow.exchange.attempts)
    return any(attempt.error is None for attempt in attempts)


class Abandoned:
    """
    The `Client` of a call whose own has left.

    What is written to it is gone. It holds nothing of the call once that is over.
    """

    __slots__ = ("_cut", "_exchange", "_limit", "_loop", "_next", "_who_left")

    pushes = False
    blocked = False
    unsent_bytes = 0

    def __init__(self, who_left: Client, policy: OnDisconnect, exchange: Exchange, cut: Callable[[], None]) -> None:
        """*cut* ends the call; it is called when *exchange* has cost as much as *policy* allows."""
        self._who_left: Client | None = who_left
        self._limit: Money | None = policy.drain_up_to_usd if isinstance(policy, DrainUpTo) else None
        self._exchange: Exchange | None = exchange
        self._cut: Callable[[], None] | None = cut
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look at the cost from now on, where there is a limit; the call may be cut before this returns."""
        if self._limit is not None:
            self._look(self._limit)

    def _look(self, limit: Money) -> None:
        exchange, cut = self._exchange, self._cut
        if exchange is None or cut is None or exchange.outcome is not None:
            return
        began_s = self._loop.time()
        cost = exchange.cost_so_far()
        if cost is None or cost >= limit:
            cut()
            return
        took_s = self._loop.time() - began_s
        self._next = self._loop.call_later(min(max(PERIOD_S, took_s * _PART), MOST_S), self._look, limit)

    # -- the Client of the call ----------------------------------------------------------------------------------

    def write(self, *data: bytes) -> None:
        """Nobody is there to get it."""

    def pass_on(self, data: bytes) -> None:
        """Nor this."""

    async def drain(self) -> None:
        """All was taken."""

    def abort(self) -> None:
        """Nobody is there to be cut."""

    def over(self) -> None:
        """See Client: whoever held the connection still counts the call."""
        if self._next is not None:
            self._next.cancel()
        who_left, self._who_left = self._who_left, None
        self._exchange = self._cut = self._next = None  # each holds the call, which holds us
        if who_left is not None:
            who_left.over()
