"""Who waits for a place, and whose turn it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """
    What waits, each for a caller: callers take turns, and of each the first that came is the first served.

    So a caller with one that waits is served after at most one of each other caller, however many those have (round
    robin, as "Stochastic Fairness Queuing" of P. E. McKenney has it, without its collisions). Each method takes the
    same time however many wait: a queue that is full must not make it dear to refuse.
    """

    __slots__ = ("_by_length", "_last", "_lines", "longest", "size")

    def __init__(self) -> None:
        self.size = 0
        """How many wait."""
        self.longest = 0
        """How many wait for the caller that has most."""
        self._lines: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()  # the first's turn is next, but see _last
        self._by_length: dict[int, OrderedDict[str, None]] = {}  # the callers that have so many
        self._last = ""  # the caller that was served last; it stays at its place until somebody else's turn is taken

    def waiting(self, caller: str) -> int:
        """How many wait for *caller*."""
        line = self._lines.get(caller)
        return 0 if line is None else len(line)

    def add(self, caller: str, item: T) -> None:
        """Let *item*, which does not wait yet, wait for *caller*."""
        if not self._lines:
            self._last = caller  # most likely it has the places that are taken: who comes now has the first turn
        line = self._lines.setdefault(caller, OrderedDict())
        line[item] = None
        self._resized(caller, len(line) - 1, len(line))

    def take(self) -> T:
        """Whose turn it is, which waits no more. KeyError when nothing waits."""
        caller = next(iter(self._lines), "")
        if caller == self._last and len(self._lines) > 1:
            self._lines.move_to_end(caller)
            caller = next(iter(self._lines))
        self._last = caller
        return self._pop(caller, last=False)

    def take_last(self) -> T:
        """The one that came last of the caller that has most, which waits no more. KeyError when nothing waits."""
        return self._pop(next(reversed(self._by_length[self.longest])), last=True)

    def discard(self, caller: str, item: T) -> None:
        """Let *item* wait no more, if it does."""
        line = self._lines.get(caller)
        if line is not None and item in line:
            del line[item]
            self._shortened(caller, line)

    def _pop(self, caller: str, *, last: bool) -> T:
        line = self._lines[caller]
        item, _ = line.popitem(last=last)
        self._shortened(caller, line)
        return item

    def _shortened(self, caller: str, line: OrderedDict[T, None]) -> None:
        if not line:
            del self._lines[caller]
        self._resized(caller, len(line) + 1, len(line))

    def _resized(self, caller: str, before: int, now: int) -> None:
        """Keep the index right. A line has become longer or shorter by one: so has the longest, if at all."""
        self.size += now - before
        if now:
            self._by_length.setdefault(now, OrderedDict())[caller] = None
        if before:
            same = self._by_length[before]
            del same[caller]
            if not same:
                del self._by_length[before]
        if now > self.longest or (before == self.longest and before not in self._by_length):
            self.longest = now
