"""Requests: their head, and their bytes with the fewest changes."""

from __future__ import annotations

import attrs

from llmproxy_anthropic.thinking_block import is_ours
from llmproxy_core import RequestHead
from llmproxy_core.chat import ReasoningPart
from llmproxy_core.wire import (
    BOOLEAN,
    STRING,
    Changes,
    Form,
    bad_request,
    decode,
    encode,
    read_request,
    scan,
    with_members,
    write_request,
)

_SEAL = b'"llmproxy_'
"""Begins the signatures and data that clients carry for other providers."""


def read_head(body: bytes) -> RequestHead:
    """Check *body* strictly and take what pass-through needs. BadRequest names the member that is wrong."""
    top = scan(body)
    head = RequestHead()
    if (text := top.text("model")) is not None:
        head.model = decode(STRING, text, "model", bad_request)
    if (text := top.text("stream")) is not None:
        head.stream = head.wants_usage = decode(BOOLEAN, text, "stream", bad_request)
    return head


def prepare(api: str, form: Form, body: bytes, *, model: str | None, stream: bool | None) -> bytes:
    """See `Dialect.prepare`; the thinking of other providers is left out."""
    top = scan(body)
    changes: Changes = {}
    if model is not None and top.text("model") != (name := encode(model)):
        changes["model"] = name
    if stream is not None and stream != (top.text("stream") == b"true"):
        changes["stream"] = encode(stream)
    changed = with_members(body, changes) if changes else body
    return _without_carried(api, form, changed) if _SEAL in changed else changed


def _without_carried(api: str, form: Form, body: bytes) -> bytes:
    """*body* less what only other providers can read: ours would refuse it."""
    chat = read_request(api, form, body)
    messages = tuple(
        attrs.evolve(message, content=tuple(part for part in message.content if not _is_foreign(part)))
        if any(map(_is_foreign, message.content)) or _SEAL in (b"" if message.raw is None else message.raw.text)
        else message
        for message in chat.messages
    )
    return write_request(api, form, attrs.evolve(chat, messages=messages))


def _is_foreign(part: object) -> bool:
    return isinstance(part, ReasoningPart) and not is_ours(part)
