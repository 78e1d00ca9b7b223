"""Reading the body of an upstream's answer within a bound."""

from __future__ import annotations

from llmproxy_core.errors import UpstreamError, too_long
from llmproxy_core.llm import UpstreamResponse


async def read_whole(answer: UpstreamResponse, max_bytes: int, pieces: list[bytes]) -> None:
    """Add the body up to its end to *pieces*; UpstreamGarbage when all of them are longer than *max_bytes*."""
    size = sum(map(len, pieces))
    data = b""
    while size <= max_bytes and (data := await answer.body.read()):
        size += len(data)
        pieces.append(data)
    if size > max_bytes:
        raise too_long(max_bytes)


async def read_head(answer: UpstreamResponse, max_bytes: int) -> tuple[bytes, bool]:
    """
    The first *max_bytes* of an error's body, and whether that is all of it.

    What breaks while reading it is not worth another error.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        while size <= max_bytes and (data := await answer.body.read()):
            pieces.append(data)
            size += len(data)
    except UpstreamError:  # the status has been said; a cut error body changes nothing about it
        return b"".join(pieces)[:max_bytes], False
    return b"".join(pieces)[:max_bytes], size <= max_bytes
