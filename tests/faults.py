"""Faults of dialects that the conformance tests must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llmproxy_openai import OpenAIDialect

FAULTS: list[tuple[str, str, type[OpenAIDialect]]] = []
"""What is wrong, the name of the check that is to find it, and the dialect."""


def fault(what: str, check: str) -> Callable[[type[OpenAIDialect]], type[OpenAIDialect]]:
    def note(dialect: type[OpenAIDialect]) -> type[OpenAIDialect]:
        FAULTS.append((what, check, dialect))
        return dialect

    return note


def again(body: bytes) -> bytes:
    """The same JSON in other bytes."""
    return msgspec.json.encode(msgspec.json.decode(body))


class Wrapped:
    """A reader, writer or scanner that does something else in one place."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
