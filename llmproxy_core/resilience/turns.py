"""Calls that wait until a place is free: whose turn it is, who must give way, and who has waited too long."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from math import inf
from typing import Literal

from llmproxy_core.resilience.fair_queue import FairQueue

Refusal = Literal["full", "displaced", "waited", "deadline"]
"""
Why a call that would wait has no place: too many wait already; it made way for a caller of whom fewer wait; its turn
did not come in the time that a call may wait; nor before its own deadline.
"""


class Turns(FairQueue[asyncio.Future[Refusal | None]]):
    """
    The calls that wait for a place, in turns that are fair between callers. One event loop.

    Who makes it counts the places, and says by `serve` that one is free. While nobody waits there is no future, no
    timer and no lock.
    """

    __slots__ = ("_take_back",)

    def __init__(self, take_back: Callable[[], None]) -> None:
        """*take_back* is called when a call is cancelled just when it was given a place: that one is free again."""
        super().__init__()
        self._take_back = take_back

    async def wait(self, address: str, *, most: int, wait_s: float, left_s: float = inf) -> Refusal | None:
        """
        Wait until it is the turn of who calls from *address*: None, it has a place. Else why it has none.

        Refused at once where *most* wait, unless a caller has two more of them than this one has: the last of those is
        then refused in its place. Refused after *wait_s* seconds, or after *left_s*, which its deadline leaves it, if
        that is sooner. Who is cancelled waits no more and has no place, also when its turn had just come.
        """
        late: Refusal = "waited"
        if left_s < wait_s:
            wait_s, late = left_s, "deadline"
        if wait_s <= 0:
            return late
        caller = caller_of(address)
        if not self._make_room(caller, most):
            return "full"
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Refusal | None] = loop.create_future()
        self.add(caller, turn)
        # A timer for each that waits, not one for all: an event loop's heap finds the next due as well as ours would.
        timer = loop.call_later(wait_s, self._give_up, caller, turn, late)
        try:
            return await turn
        except asyncio.CancelledError:
            self.discard(caller, turn)
            if turn.done() and not turn.cancelled() and turn.result() is None:
                self._take_back()
            raise
        finally:
            timer.cancel()

    def serve(self) -> bool:
        """Give a place that is free to whose turn it is; False where nobody waits."""
        while self.size:
            turn = self.take()
            if not turn.done():  # else it was cancelled, and its task has not run since
                turn.set_result(None)
                return True
        return False

    def has_room(self, address: str, most: int) -> bool:
        """Whether one more call from *address* could wait now, if need be in place of another."""
        return self.size < most or self._may_displace(caller_of(address), most)

    def _may_displace(self, caller: str, most: int) -> bool:
        # After a reload there may be more than may be: these stay, and nobody comes in their place.
        return self.size <= most and self.longest >= self.waiting(caller) + 2

    def _make_room(self, caller: str, most: int) -> bool:
        """Whether one more may wait for *caller*, without being unfair to those that do."""
        if self.size < most:
            return True
        if not self._may_displace(caller, most):
            return False
        _refuse(self.take_last(), "displaced")
        return True

    def _give_up(self, caller: str, turn: asyncio.Future[Refusal | None], why: Refusal) -> None:
        self.discard(caller, turn)
        _refuse(turn, why)


def _refuse(turn: asyncio.Future[Refusal | None], why: Refusal) -> None:
    """A result, not an exception: who was cancelled meanwhile would never retrieve that, and asyncio complain of it."""
    if not turn.done():
        turn.set_result(why)


def caller_of(address: str) -> str:
    """
    Who calls from *address*: itself, or of IPv6 the network of 64 bits that a site has at least (RFC 6177).

    Else whoever has one such network would have as many turns as it takes addresses of it.
    """
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return address if found.ipv4_mapped is not None else found.packed[:8].hex()
