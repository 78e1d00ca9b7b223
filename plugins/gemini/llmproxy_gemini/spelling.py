"""Members in the two spellings that Google reads: `inlineData`, and `inline_data`."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import lru_cache
from typing import TypeVar

from llmproxy_core.wire import Kind, Members

T = TypeVar("T")

_CAPITAL = re.compile(r"([A-Z])")


@lru_cache(256)
def snake(name: str) -> str:
    """*name* in the other spelling."""
    return _CAPITAL.sub(lambda found: "_" + found[1].lower(), name)


def spelled(name: str, present: Container[str]) -> str:
    """The spelling of *name* that is in use among *present*; its own where neither is."""
    other = snake(name)
    return other if name not in present and other in present else name


class Spelled(Members):
    """Members asked for in Google's own spelling, and found in either."""

    __slots__ = ()

    def peek(self, name: str) -> bytes | None:
        found = super().peek(name)
        return super().peek(snake(name)) if found is None else found

    def raw(self, name: str) -> bytes | None:
        found = super().raw(name)
        return super().raw(snake(name)) if found is None else found

    def take(self, name: str, kind: Kind[T]) -> T | None:
        found = super().take(name, kind)
        return super().take(snake(name), kind) if found is None else found

    def object(self, name: str) -> Spelled | None:
        text = self.raw(name)
        return None if text is None else Spelled(text, self.at(name), self.fail)
