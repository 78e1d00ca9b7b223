"""A node with some of its fields changed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import attrs

N = TypeVar("N")


def changed(node: N, **changes: Any) -> N:
    """
    *node* with other *changes*, as `attrs.evolve` gives it: it forgets the bytes that it was read from.

    It takes a third of the time, which counts where every part of a conversation is looked at.
    """
    cls: Any = type(node)
    for name in _fields(cls):
        if name not in changes:
            changes[name] = getattr(node, name)
    new: N = cls(**changes)
    return new


@lru_cache(64)
def _fields(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls) if field.init)
