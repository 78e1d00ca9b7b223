"""How many tokens a text of some length has, roughly."""

from __future__ import annotations

from typing import Protocol

_BYTES_PER_TOKEN = 4

PER_CALL = 12
"""What a tool call costs besides its name and arguments: 7 to 16 in what is recorded of OpenAI's models."""


_MOST_COUNTED = 64 << 10
"""Characters of one text that are counted, about a millisecond; the rest of it has as many a character."""


class Tokenizer(Protocol):
    """Counts the tokens of texts, without any network. What it counts is still an estimate for most models."""

    def count(self, text: str) -> int:
        """The tokens of *text*. Never fails, never waits."""
        ...

    async def ready(self) -> None:
        """Return once `count` is as good as it can be: a vocabulary may have to be loaded."""
        ...


class RoughTokenizer:
    """Four bytes are a token, as in about all languages and vocabularies, give or take a third."""

    def count(self, text: str) -> int:
        return estimated_tokens(text_size(text))

    async def ready(self) -> None:
        """Nothing is loaded."""


ROUGH = RoughTokenizer()


def counted(text: str, tokenizer: Tokenizer) -> int:
    """The tokens of *text*, of a long one by its beginning."""
    if len(text) <= _MOST_COUNTED:
        return tokenizer.count(text)
    return -(-tokenizer.count(text[:_MOST_COUNTED]) * len(text) // _MOST_COUNTED)


def text_size(text: str) -> int:
    """Bytes of *text* in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def estimated_tokens(size: int) -> int:
    """The tokens of *size* bytes of text, rounded up."""
    return -(-size // _BYTES_PER_TOKEN)


def estimated_output(tokens: int, pieces: int, calls: int) -> int:
    """The tokens of a stream whose text has so many *tokens* and came in *pieces*; a piece is one token at least."""
    return max(pieces, tokens) + calls * PER_CALL
