"""An event of a stream, decoded, and what the reader leaves to the writer of the same protocol."""

from __future__ import annotations

import msgspec

RAW = msgspec.Raw()


class Delta(msgspec.Struct):
    """What is new in a block, or (of `message_delta`) in the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: msgspec.Raw = RAW
    content: msgspec.Raw = RAW
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: msgspec.Raw = RAW


class Payload(msgspec.Struct):
    """What is read of an event. Its unknown members stay in its bytes."""

    type: str = ""
    index: int = 0
    message: msgspec.Raw = RAW
    content_block: msgspec.Raw = RAW
    delta: Delta | None = None
    usage: msgspec.Raw = RAW


decode_payload = msgspec.json.Decoder(Payload).decode


class EventSource:
    """
    Where the events of a frame stand. *kind* is the event's type, *index* the block's.

    *block* is the kind of the block that is begun: `text`, `thinking`, `tool`, `other`.
    """

    __slots__ = ("block", "data", "index", "kind", "member")

    def __init__(self, data: bytes, kind: str, index: int = -1, *, block: str = "", member: str = "") -> None:
        self.data = data
        self.kind = kind
        self.index = index
        self.block = block
        self.member = member
        """The member of the delta that holds its text."""
