"""Keeping the bytes of an answer for who asked (`Response.keep_body`), within a bound."""

from __future__ import annotations

from llmproxy_core.outcome import KeptBody
from llmproxy_core.subscription import Keep


class Keeper:
    """Collects bytes for one wish; over its bound it lets go of all of them."""

    __slots__ = ("_api", "_data", "_size", "_stream", "_wish")

    def __init__(self, wish: Keep, api: str, *, stream: bool) -> None:
        self._wish = wish
        self._api = api
        self._stream = stream
        self._data: list[bytes] | None = []
        self._size = 0

    def add(self, data: bytes) -> None:
        if self._data is None:
            return
        self._size += len(data)
        if self._size > self._wish.max_bytes:
            self._data = None
        else:
            self._data.append(data)

    def done(self) -> None:
        """The answer is complete: hand the bytes over. Called before the response is finished."""
        if self._data is not None:
            self._wish.body = KeptBody(self._api, self._stream, b"".join(self._data))


def keep_whole(wish: Keep, api: str, data: bytes) -> None:
    """Keep *data*, a whole answer written in *api*."""
    keeper = Keeper(wish, api, stream=False)
    keeper.add(data)
    keeper.done()
