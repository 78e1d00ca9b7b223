"""Messages and parts that are a text and nothing else, as most are, read at once."""

from __future__ import annotations

import msgspec


class PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`{"role": …, "content": "…"}`, as several protocols spell it."""

    role: str
    content: str


class PlainText(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`{"type": …, "text": "…"}`; *type* is None where there is none."""

    text: str
    type: str | None = None


_decode_message = msgspec.json.Decoder(PlainMessage).decode
_decode_text = msgspec.json.Decoder(PlainText).decode


def plain_message(text: bytes) -> PlainMessage | None:
    """The message that *text* is; None when it is another one, or a wrong one: the usual reader tells."""
    try:
        return _decode_message(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def plain_text(text: bytes) -> PlainText | None:
    """The part that *text* is; None when it is another one, or a wrong one: the usual reader tells."""
    try:
        return _decode_text(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
