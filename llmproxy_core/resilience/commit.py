"""The point up to which a failure is hidden: from there on the client has a part of the answer."""

from __future__ import annotations

from typing import Annotated, Literal

import attrs

from llmproxy_core.option import WrittenAs, between, option

_chars = between(0, 1_000_000, "a number of characters")
_ms = between(0, 600_000, "a number of milliseconds")


@attrs.frozen(kw_only=True)
class HeldText:
    """How much of a stream is held back."""

    chars: int = option(
        "So many characters are held: of text, of thinking, of what tools are called with.",
        default=0,
        validator=_chars,
    )
    ms: int = option("No longer than so many milliseconds; 0: as long as it takes.", default=0, validator=_ms)


@attrs.frozen
class Commit:
    """*chars* is how much of a stream must have been said; None: its head is enough."""

    chars: int | None = 0
    most_s: float | None = None
    """How long that is waited for."""


FIRST_TOKEN, HEADERS = Commit(), Commit(None)


def read_commit(written: Literal["headers", "first-token"] | HeldText) -> Commit:
    if isinstance(written, HeldText):
        return Commit(written.chars, written.ms / 1000 or None)
    return HEADERS if written == "headers" else FIRST_TOKEN


CommitPoint = Annotated[Commit, WrittenAs(HeldText | Literal["headers", "first-token"], read_commit)]  # a table first
