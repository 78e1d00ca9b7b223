"""What outlives a gateway: connections, stores and the state of plugins, shared by all whose configuration is equal."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

import attrs

from llmproxy_core.errors import raise_unless_bug

_log = logging.getLogger("llmproxy")
T = TypeVar("T")
Close = Callable[[], Awaitable[None]]


@attrs.define
class _Held:
    name: str
    value: Any
    close: Close | None
    users: int = 0


class Resources:
    """
    Keeps a resource for as long as any lease has it.

    A reload takes a new lease, builds the new gateway with it, and releases the old one's when that has served its last
    call: what both name by an equal key is one and the same, what only the old one named is then closed.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, _Held] = {}

    def lease(self) -> Lease:
        return Lease(self._held)

    def __len__(self) -> int:
        return len(self._held)

    async def aclose(self) -> None:
        """Close everything, whoever has it."""
        held = list(self._held.values())
        self._held.clear()
        for it in held:
            await _close(it)


class Lease:
    """One gateway's share of the resources."""

    def __init__(self, held: dict[Hashable, _Held]) -> None:
        self._held = held
        self._keys: set[Hashable] = set()

    def get(
        self, key: Hashable, make: Callable[[], T], close: Callable[[T], Awaitable[None]] | None = None, name: str = ""
    ) -> T:
        """
        The resource of *key*: an equal one that is there, else what *make* gives.

        *close* frees it in the end; *name* is what it is called when that fails.
        """
        it = self._held.get(key)
        if it is None:
            value = make()
            it = self._held[key] = _Held(name, value, None if close is None else lambda: close(value))
        if key not in self._keys:
            self._keys.add(key)
            it.users += 1
        return cast("T", it.value)

    async def release(self) -> None:
        """Give everything back; what nobody else has is closed. May be called again."""
        keys, self._keys = self._keys, set()
        unused = []
        for key in keys:
            if (it := self._held.get(key)) is None:
                continue  # all was closed
            it.users -= 1
            if not it.users:
                unused.append(self._held.pop(key))
        for it in unused:
            await _close(it)


async def _close(it: _Held) -> None:
    if it.close is None:
        return
    try:
        await it.close()
    except BaseException as bug:  # noqa: BLE001 - a plugin's bug must not keep the others open
        raise_unless_bug(bug)
        _log.exception("the %s could not be closed", it.name or "resource")
