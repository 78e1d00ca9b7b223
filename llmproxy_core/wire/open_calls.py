"""Tool calls that wait for their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_Call = tuple[str, str, T]
"""Its id, the name of its tool, and what is known of it."""


class OpenCalls(Generic[T]):
    """
    What is known of each call that has no result yet, in the order of the calls.

    Nearly all results come in that order. Where one does not, calls are looked up from then on, so that ten thousand
    results in whatever order take time in proportion to their number.
    """

    __slots__ = ("_index", "_line")

    def __init__(self) -> None:
        self._line: deque[_Call[T]] = deque()
        self._index: _Index[T] | None = None  # in place of the line

    def add(self, call_id: str, name: str, known: T) -> None:
        """A call of the tool *name* begins to wait; an id may be used again."""
        if self._index is None:
            self._line.append((call_id, name, known))
        else:
            self._index.add((call_id, name, known))

    def take(self, call_id: str, name: str | None) -> T | None:
        """
        What is known of the call that a result answers, which waits no longer; None: there is no such call.

        It is the first of the id; for a result without one (""), the first of the tool *name*, or (None) of all.
        """
        if self._index is None:
            line = self._line
            if not line:
                return None
            first_id, first_name, known = line[0]
            if first_id == call_id if call_id else name in (None, first_name):
                line.popleft()
                return known
            self._index = _Index(line)
            line.clear()
        found = self._index.take(call_id, name)
        if not self._index.calls:
            self._index = None
        return found

    def __bool__(self) -> bool:
        return bool(self._line or self._index)

    def __iter__(self) -> Iterator[T]:
        """The calls that wait, first come first."""
        calls = self._line if self._index is None else self._index.calls.values()
        return (known for _, _, known in calls)


class _Index(Generic[T]):
    """Calls by their ids and by their names; those that were taken are passed over when they are met."""

    def __init__(self, calls: Iterable[_Call[T]]) -> None:
        self.calls: dict[int, _Call[T]] = {}  # that wait, by their number
        self._count = 0
        self._by_id: dict[str, deque[int]] = {}
        self._by_name: dict[str | None, deque[int]] = {}  # under None all
        for call in calls:
            self.add(call)

    def add(self, call: _Call[T]) -> None:
        self.calls[self._count] = call
        self._by_id.setdefault(call[0], deque()).append(self._count)
        self._by_name.setdefault(call[1], deque()).append(self._count)
        self._by_name.setdefault(None, deque()).append(self._count)
        self._count += 1

    def take(self, call_id: str, name: str | None) -> T | None:
        line = self._by_id.get(call_id) if call_id else self._by_name.get(name)
        while line:
            found = self.calls.pop(line.popleft(), None)
            if found is not None:
                return found[2]
        return None
