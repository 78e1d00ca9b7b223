"""A string that cannot be formatted, logged or pickled by accident."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """A credential. It shows as `***` everywhere; `reveal()` is the one way to its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not value:
            raise ValueError("an empty secret protects nothing")
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that must write it on a wire."""
        return self._value

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret(***)"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def redact(self, text: bytes) -> bytes:
        """*text* with every occurrence of the value replaced: providers quote keys in their errors."""
        value = self._value.encode()
        escaped = value.replace(b"/", b"\\/")  # as JSON may write a slash
        return text.replace(value, b"***").replace(escaped, b"***")
