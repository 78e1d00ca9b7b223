"""Bytes under keys in this process, least recently used first to go."""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs
from cachetools import Cache, TLRUCache


@attrs.frozen
class _Entry:
    value: bytes
    tags: frozenset[str]
    expires_at: float
    size: int
    """Bytes of the key, the value and the tags together: nobody can fill the memory with long names."""


def _expires_at(key: str, entry: _Entry, now: float) -> float:
    return entry.expires_at


def _size(entry: _Entry) -> int:
    return entry.size


def _bytes_in(*texts: str) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


class MemoryKeyValue:
    """
    A KeyValue of one process. No method suspends, so on an event loop each is atomic.

    An entry that is larger than the bound is not kept, and neither is what it would have replaced.
    """

    def __init__(self, now: Callable[[], float], *, max_bytes: int) -> None:
        """*now*: seconds since the epoch; when it goes back, entries live as much longer."""
        self._now = now
        self._cache = self._empty(max_bytes)

    def _empty(self, max_bytes: int) -> TLRUCache[str, _Entry, float]:
        return TLRUCache(max_bytes, _expires_at, self._now, _size)

    def resize(self, max_bytes: int) -> None:
        """From now on *max_bytes* is the bound; what is kept stays as far as it fits, the latest used first."""
        old = self._cache
        if max_bytes == old.maxsize:
            return
        self._cache = self._empty(max_bytes)
        with old.timer:  # holds the time, so that none expires between the question and the answer
            while len(old):
                key, entry = old.popitem()
                self._put(key, entry)

    async def get(self, key: str) -> bytes | None:
        entry = self._cache.get(key)
        return None if entry is None else entry.value

    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        named = frozenset(tags)
        self._put(key, _Entry(value, named, self._now() + ttl_s, len(value) + _bytes_in(key, *named)))

    def _put(self, key: str, entry: _Entry) -> None:
        if entry.size > self._cache.maxsize:
            self._cache.pop(key, None)
        else:
            self._cache[key] = entry

    async def delete(self, key: str) -> int:
        return 0 if self._cache.pop(key, None) is None else 1

    async def delete_tag(self, tag: str) -> int:
        """It looks at every entry: rare, and an index would cost every other call."""
        # Read past the order of use, which the look of this method must not change.
        doomed = [key for key in self._cache if tag in Cache.__getitem__(self._cache, key).tags]
        return sum(self._cache.pop(key, None) is not None for key in doomed)

    async def clear(self) -> int:
        count = len(self._cache)
        self._cache.clear()
        return count
