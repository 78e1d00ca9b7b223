"""What processors tell each other about one exchange."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Note(Generic[T]):
    """A typed key for `exchange.notes`: made once at module level by whoever writes the note."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Note({self.name!r})"


class Notes:
    """What processors tell each other about one exchange, under typed keys."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[Note[Any], Any] = {}

    def __setitem__(self, key: Note[T], value: T) -> None:
        self._values[key] = value

    def __getitem__(self, key: Note[T]) -> T:
        value: T = self._values[key]
        return value

    def get(self, key: Note[T]) -> T | None:
        return self._values.get(key)

    def copy(self) -> Notes:
        """The same notes, to be written further apart."""
        copied = Notes()
        copied._values.update(self._values)
        return copied

    def __contains__(self, key: Note[Any]) -> bool:
        return key in self._values
