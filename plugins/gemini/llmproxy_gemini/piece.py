"""A content that is several turns of the neutral conversation: results of tools, and what is said to them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import force_setattr

from llmproxy_core.chat import Message, Raw, node


@node
class Piece(Raw):
    """The bytes of the content that a message was read from, of whose *count* messages it is number *index*."""

    index: int = 0
    count: int = 1


def mark(messages: Sequence[Message], api: str, text: bytes) -> None:
    """Make *messages* remember the content they were read from."""
    for index, message in enumerate(messages):
        # As `remember` does: the one write to a frozen node, by its reader, before anyone sees it.
        force_setattr(message, "raw", Piece(api, text, index, len(messages)))  # type: ignore[arg-type]


def content_of(messages: Sequence[Message], start: int, api: str) -> Piece | None:
    """The content that the messages from *start* on were read from, if all of its messages are there in order."""
    first = messages[start].raw
    if not isinstance(first, Piece) or first.api != api or first.index != 0:
        return None
    run = messages[start : start + first.count]
    if len(run) < first.count:
        return None
    for index, message in enumerate(run):
        piece = message.raw
        if not isinstance(piece, Piece) or piece.text is not first.text or piece.index != index:
            return None
    return first
