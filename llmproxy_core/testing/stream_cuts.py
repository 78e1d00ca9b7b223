"""A stream's bytes, cut as a network may cut them."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from llmproxy_core.testing.chance import seeded

Cut = tuple[str, tuple[bytes, ...]]
"""How it was cut, for messages, and the pieces."""

_MOST_PLACES = 160


def cuts(stream: bytes, *, most: int = _MOST_PLACES) -> Iterator[Cut]:
    """All at once, byte by byte, in two at many places (all of a short stream), and in pieces of random length."""
    yield "all bytes in one chunk", (stream,)
    yield "byte by byte", tuple(stream[at : at + 1] for at in range(len(stream)))
    for at in places(stream, most=most):
        around = f"{stream[max(0, at - 8) : at]!r} | {stream[at : at + 8]!r}"
        yield f"cut before byte {at}, {around}", (stream[:at], stream[at:])
    random = seeded(len(stream))
    for number in range(5):
        yield f"in random pieces ({number})", tuple(_pieces(stream, random))


def places(stream: bytes, *, most: int = _MOST_PLACES) -> list[int]:
    """At most *most* places inside *stream*; the odd ones first: in characters, in line ends, beside quotes."""
    inside = range(1, len(stream))
    if len(inside) <= most:
        return list(inside)
    random = seeded(len(stream))
    odd = [at for at in inside if stream[at] >= 0x80 or stream[at] in b"\r\n" or stream[at - 1] in b'\r\n:"']
    chosen = set(random.sample(odd, min(len(odd), most // 2)))
    return sorted(chosen | set(random.sample(inside, most - len(chosen))))


def _pieces(stream: bytes, random: Random) -> Iterator[bytes]:
    start = 0
    while start < len(stream):
        end = start + random.choice([1, 2, 3, 7, 50, 400])
        yield stream[start:end]
        start = end
