"""How many calls an LLM serves at once, over all of its keys, who waits for a place, and whether it takes any."""

from __future__ import annotations

from math import inf

import attrs

from llmproxy_core.resilience.failure import Unavailable
from llmproxy_core.resilience.turns import Refusal, Turns

FULL_S = 1.0
"""When to come again to an LLM that is full: nobody knows when one of its calls will end."""

_WORDS: dict[Refusal, str] = {
    "full": "",
    "displaced": ", and too many of yours wait for it",
    "waited": ", and the turn of this one did not come in time (queue_timeout_s)",
    "deadline": ", and the turn of this one did not come before its deadline",
}


@attrs.frozen
class Room:
    """*most* calls at a time, 0: no bound; what does not fit waits, *most_waiting* calls, *wait_s* seconds each."""

    most: int = 0
    most_waiting: int = 0
    wait_s: float = 1.0


class Places:
    """
    The calls of the LLM *name* that are in flight, as far as there is `room`; others wait, their callers in turn.

    Who finds it full takes a `turn`, else who comes may `enter`; either gives the place back by `leave`. A place that
    becomes free goes to who waits: nobody who comes later can take it.
    It outlives configurations: whoever is about to call has it `follow` the room that it was configured with, by
    `enter`.
    """

    __slots__ = ("_limit", "_turns", "drained", "in_flight", "name", "room")

    def __init__(self, name: str, room: Room) -> None:
        self.name = name
        self.room = room
        self.in_flight = 0
        self.drained = False
        """An operator has taken it out of service: what is under way ends, nothing new begins."""
        self._limit: float = room.most or inf
        self._turns = Turns(self.leave)

    @property
    def waiting(self) -> int:
        return self._turns.size

    @property
    def is_full(self) -> bool:
        """Whether there is no place now. Who comes then can only wait for its turn."""
        return self.in_flight >= self._limit

    def follow(self, room: Room) -> None:
        """
        As much *room* from now on; where there is more, those that wait are let in.

        Who is inside stays, also where there are more than that now; so does who waits, as long as it was told then.
        """
        self.room = room
        self._limit = room.most or inf
        self._let_in()

    def refusal(self) -> Unavailable | None:
        """Why a call could not begin now, if it did not wait; None where it could."""
        return self._closed() or (self._refused("full") if self.is_full else None)

    def enter(self, room: Room) -> Unavailable | None:
        """Take a place without waiting, where there is *room* for it; gives why there is none."""
        if room is not self.room:
            self.follow(room)
        if self.drained or self.in_flight >= self._limit:
            return self.refusal()
        self.in_flight += 1
        return None

    async def turn(self, address: str, left_s: float = inf) -> Unavailable | None:
        """
        Take a place as soon as it is the turn of who calls from *address*, its deadline being *left_s* seconds away.

        Gives why there is none: see `Turns.wait`. Who is cancelled holds none.
        """
        if (closed := self._closed()) is not None:
            return closed
        room = self.room
        why = await self._turns.wait(address, most=room.most_waiting, wait_s=room.wait_s, left_s=left_s)
        if why is not None:
            return self._refused(why)
        closed = self._closed()
        if closed is not None:  # since it began to wait
            self.leave()
        return closed

    def leave(self) -> None:
        """Give the place back; it goes to who waits for one."""
        self.in_flight -= 1
        if self._turns.size:
            self._let_in()

    def _let_in(self) -> None:
        """Give the places that are free to those whose turn it is."""
        while self.in_flight < self._limit and self._turns.serve():
            self.in_flight += 1

    def _closed(self) -> Unavailable | None:
        if not self.drained:
            return None
        return Unavailable(f"The LLM '{self.name}' is out of service", code="llm_drained")

    def _refused(self, why: Refusal) -> Unavailable:
        said = f"The LLM '{self.name}' serves as many calls as it may{_WORDS[why]}"
        return Unavailable(said, retry_after_s=FULL_S, code="llm_full")
