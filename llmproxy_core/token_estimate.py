"""How many tokens a text of some length has, roughly."""

from __future__ import annotations

_BYTES_PER_TOKEN = 4

PER_CALL = 12
"""What a tool call costs besides its name and arguments: 7 to 16 in what is recorded of OpenAI's models."""


def estimated_tokens(size: int) -> int:
    """The tokens of *size* bytes of text, rounded up."""
    return -(-size // _BYTES_PER_TOKEN)


def estimated_output(size: int, pieces: int, calls: int) -> int:
    """The tokens of a stream that came as *pieces* of text, *size* bytes in all; a piece is one token at least."""
    return max(pieces, estimated_tokens(size)) + calls * PER_CALL
