"""Keeping the bytes of an answer for who asked (`Response.keep_body`), within a bound."""

from __future__ import annotations

from llmproxy_core.outcome import KeptBody
from llmproxy_core.subscription import Keep


class Keeper:
    """Collects bytes for one wish; over its bound it lets go of all of them, or keeps the first of them."""

    __slots__ = ("_api", "_complete", "_data", "_size", "_stream", "_wish")

    def __init__(self, wish: Keep, api: str, *, stream: bool) -> None:
        self._wish = wish
        self._api = api
        self._stream = stream
        self._data: list[bytes] | None = []
        self._size = 0
        self._complete = True
        if wish.partial:
            wish.so_far = self._so_far

    def add(self, data: bytes) -> None:
        if self._data is None or not self._complete:
            return
        room = self._wish.max_bytes - self._size
        self._size += len(data)
        if len(data) <= room:
            self._data.append(data)
        elif self._wish.partial:
            self._data.append(data[:room])
            self._complete = False
        else:
            self._data = None

    def done(self) -> None:
        """The answer is complete: hand the bytes over. Called before the response is finished."""
        if self._data is not None:
            self._wish.body = KeptBody(self._api, self._stream, b"".join(self._data), self._complete)

    def _so_far(self) -> KeptBody:
        return KeptBody(self._api, self._stream, b"".join(self._data or ()), False)


def keep_whole(wish: Keep, api: str, data: bytes) -> None:
    """Keep *data*, a whole answer written in *api*."""
    keeper = Keeper(wish, api, stream=False)
    keeper.add(data)
    keeper.done()
