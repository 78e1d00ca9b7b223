"""What the end of a stream left without its blank line."""

from __future__ import annotations

import msgspec

from llmproxy_core.sse import BOM, parse_event
from llmproxy_core.wire.splice import decode_object


def completed(rest: bytes) -> bytes:
    """
    *rest* as a whole event when it is one but for its blank line, else b"".

    The standard drops such an event, and some servers close right after it. It is whole when its data is a JSON
    object or the end mark: a prefix of one is neither.
    """
    event = parse_event(rest.removeprefix(BOM))
    if not event.has_data or not (is_done(event.data) or _is_object(event.data)):
        return b""
    if rest.endswith(b"\n\r"):  # a blank line after all: no LF came that the CR could belong to
        return rest
    if rest.endswith(b"\r\n"):
        return rest + b"\r\n"
    return rest + (rest[-1:] if rest.endswith((b"\n", b"\r")) else b"\n\n")


def is_done(data: bytes) -> bool:
    """Whether *data* of an event is the end mark of a stream."""
    return data.strip() == b"[DONE]"


def _is_object(data: bytes) -> bool:
    try:
        decode_object(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
