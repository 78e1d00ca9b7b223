"""One event of a stream of a response."""

from __future__ import annotations

from typing import Any

import msgspec

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
LIFECYCLE = TERMINAL | {"response.created", "response.in_progress", "response.queued"}
SAID_IN_PIECES = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})
"""The items whose pieces are known here."""


class Item(msgspec.Struct):
    """What tells an item of the output from others."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None


class StreamEvent(msgspec.Struct):
    """The members of all events that mean something here; each event has a few of them."""

    type: str = ""
    sequence_number: int | None = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    item_id: str | None = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    logprobs: msgspec.Raw = msgspec.Raw()
    item: msgspec.Raw = msgspec.Raw()
    part: msgspec.Raw = msgspec.Raw()
    annotation: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    data: bytes = b""
    """The whole event; set by the reader."""


_decode = msgspec.json.Decoder(StreamEvent).decode
_decode_item = msgspec.json.Decoder(Item).decode


def read_event(data: bytes) -> StreamEvent:
    """The event that *data* says. A msgspec error, or UnicodeDecodeError, for what is none."""
    event = _decode(data)
    event.data = data
    return event


def read_item(raw: msgspec.Raw) -> Item:
    """The item in an event; one without a type when there is none."""
    text = bytes(raw)
    return _decode_item(text) if text.startswith(b"{") else Item()


def is_error(event: StreamEvent) -> bool:
    """Whether it is OpenAI's own error event, or an error of a server that has none."""
    return event.type == "error" or (not event.type and bytes(event.error) not in {b"", b"null"})
