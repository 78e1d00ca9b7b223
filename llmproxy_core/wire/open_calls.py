"""Tool calls that wait for their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class OpenCalls(Generic[T]):
    """
    What is known of each call that has no result yet, in the order of the calls.

    A result finds its call without a search through the others: histories of ten thousand calls, whose results come in
    whatever order, take time in proportion to their length.
    """

    __slots__ = ("_by_id", "_by_name", "_count", "_open")

    def __init__(self) -> None:
        self._open: dict[int, tuple[str, T]] = {}  # by the number of the call: its tool's name, and what is known
        self._count = 0
        # Numbers of calls in their order; those that are not open any more are left out when they are met.
        self._by_id: dict[str, deque[int]] = {}
        self._by_name: dict[str | None, deque[int]] | None = None  # under None all; made for the first that asks

    def add(self, call_id: str, name: str, known: T) -> None:
        """A call of the tool *name* begins to wait; an id may be used again."""
        number = self._count
        self._count = number + 1
        self._open[number] = (name, known)
        line = self._by_id.get(call_id)
        if line is None:
            self._by_id[call_id] = deque((number,))
        else:
            line.append(number)
        if self._by_name is not None:
            self._name(self._by_name, number, name)

    def take(self, call_id: str, name: str | None) -> T | None:
        """
        What is known of the call that a result answers, which waits no longer; None: there is no such call.

        It is the first of the id; for a result without one (""), the first of the tool *name*, or (None) of all.
        """
        line = self._by_id.get(call_id) if call_id else self._named(name)
        while line:
            found = self._open.pop(line.popleft(), None)
            if found is not None:
                return found[1]
        return None

    def __bool__(self) -> bool:
        return bool(self._open)

    def __iter__(self) -> Iterator[T]:
        """The calls that wait, first come first."""
        return (known for _, known in self._open.values())

    def _named(self, name: str | None) -> deque[int] | None:
        if self._by_name is None:
            self._by_name = {}
            for number, (called, _) in self._open.items():
                self._name(self._by_name, number, called)
        return self._by_name.get(name)

    @staticmethod
    def _name(lines: dict[str | None, deque[int]], number: int, name: str) -> None:
        for key in (name, None):
            lines.setdefault(key, deque()).append(number)
