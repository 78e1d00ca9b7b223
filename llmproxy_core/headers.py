"""HTTP header fields as the parser gives them: a list of (lower-case name, value) pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import overload

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields of one connection (RFC 9110 section 7.6.1): they never cross a proxy."""

_new = object.__new__


class Headers:
    """Header fields in their order."""

    __slots__ = ("_pairs", "first", "has_repeated")

    _pairs: tuple[tuple[str, str], ...]  # only where a name is repeated

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """*pairs* have lower-case names."""
        pairs = tuple(pairs)
        self.first: Mapping[str, str] = (first := dict(pairs))
        """The value of each name; of a repeated one that of its first field. For who asks for many, once a call."""
        self.has_repeated = has_repeated = len(first) != len(pairs)
        """Whether a name stands there twice."""
        if has_repeated:
            self._pairs = pairs
            self.first = dict(reversed(pairs))

    @staticmethod
    def of(fields: Mapping[str, str]) -> Headers:
        """Of *fields*, none of which is repeated; they must not be changed after this."""
        headers = _new(Headers)
        headers.first = fields
        headers.has_repeated = False
        return headers

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of *name* (lower-case)."""
        return self.first.get(name, default)

    def only(self, name: str) -> str | None:
        """The value of *name*; None where it stands there more than once, too."""
        if self.has_repeated and len(self.get_all(name)) > 1:
            return None
        return self.first.get(name)

    def get_all(self, name: str) -> list[str]:
        if name not in self.first:
            return []
        if not self.has_repeated:
            return [self.first[name]]
        return [value for field, value in self._pairs if field == name]

    def pick(self, names: frozenset[str]) -> list[tuple[str, str]]:
        """The fields whose name is in *names*, in one pass."""
        return [pair for pair in self if pair[0] in names]

    def __contains__(self, name: object) -> bool:
        return name in self.first

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs if self.has_repeated else self.first.items())

    def __len__(self) -> int:
        return len(self._pairs if self.has_repeated else self.first)

    def __repr__(self) -> str:
        return f"Headers({[name for name, _ in self]})"  # names alone: values may be credentials
