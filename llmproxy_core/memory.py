"""The store of this process: fast, shared with nobody, gone when the process ends."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from llmproxy_core.memory_counter import MemoryCounter
from llmproxy_core.memory_key_value import MemoryKeyValue
from llmproxy_core.memory_ledger import MemoryLedger


@attrs.frozen
class MemoryConfig:
    """Keeps everything in the memory of one process: no other process sees it, and a restart forgets it."""


class MemoryStore:
    """
    The reference that every other store is tested against.

    Nothing in it suspends: each call is atomic on the one event loop that uses the store, and none raises
    StoreUnavailable. What it holds does not grow with the traffic: values have their bound in bytes, sums and accounts
    go with their windows, records and closed ids are the latest so many. Spaces, few and named by configuration, stay.
    """

    def __init__(self, config: MemoryConfig, now: Callable[[], float]) -> None:
        """*now*: seconds since the epoch."""
        self._now = now
        self._key_values: dict[str, MemoryKeyValue] = {}
        self._counters: dict[str, MemoryCounter] = {}
        self._ledgers: dict[str, MemoryLedger] = {}

    def key_value(self, space: str, *, max_bytes: int) -> MemoryKeyValue:
        """Whoever asks last sets the bound of a space, as a reload with another one must."""
        if space not in self._key_values:
            self._key_values[space] = MemoryKeyValue(self._now, max_bytes=max_bytes)
        self._key_values[space].resize(max_bytes)
        return self._key_values[space]

    def counter(self, space: str) -> MemoryCounter:
        if space not in self._counters:
            self._counters[space] = MemoryCounter(self._now)
        return self._counters[space]

    def ledger(self, space: str) -> MemoryLedger:
        if space not in self._ledgers:
            self._ledgers[space] = MemoryLedger(self._now)
        return self._ledgers[space]

    async def aclose(self) -> None:
        """Nothing is open."""
