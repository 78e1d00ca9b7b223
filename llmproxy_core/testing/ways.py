"""The ways of an answer: how it comes from an LLM, and how it goes to the client."""

from __future__ import annotations

import attrs


@attrs.frozen
class Way:
    """One way of an answer. *pushed*: the client's side is fed (`attach`) instead of reading."""

    name: str
    arrives_as_stream: bool
    leaves_as_stream: bool
    pushed: bool = False

    def __str__(self) -> str:
        return self.name


PLAIN = Way("a plain answer", False, False)
WRITTEN_AS_STREAM = Way("a plain answer for a client that wants a stream", False, True)
COLLECTED = Way("a stream for a client that wants a plain answer", True, False)
PULLED = Way("a stream", True, True)
PUSHED = Way("a stream that is pushed", True, True, pushed=True)
WAYS = (PLAIN, WRITTEN_AS_STREAM, COLLECTED, PULLED, PUSHED)
