"""Requests: their head, and their bytes with the fewest changes."""

from __future__ import annotations

import attrs

from llmproxy_anthropic.conversation import may_think
from llmproxy_anthropic.thinking_block import is_ours
from llmproxy_core import RequestHead
from llmproxy_core.chat import ChatRequest, Message, Part, ReasoningPart, ToolCall, remember
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
    """
    *body* less what only other providers can read: ours would refuse it.

    A message with nothing else in it goes too. So does a budget for thinking, where a turn that goes on lost its own.
    """
    chat = read_request(api, form, body)
    lessened = (_lessened(message) for message in chat.messages)
    messages = tuple(message for message in lessened if message is not None)
    written = write_request(api, form, attrs.evolve(chat, messages=messages))
    lost = any(_is_foreign(part) for message in chat.messages for part in message.content)
    if lost and _has_budget(chat) and not may_think(messages):
        return with_members(written, {"thinking": None})
    return written


def _lessened(message: Message) -> Message | None:
    """*message* without what is foreign; None when that was all."""
    if not any(_is_foreign(part) or _is_signed(part) for part in message.content):
        return message
    parts = tuple(_unsigned(part) for part in message.content if not _is_foreign(part))
    return attrs.evolve(message, content=parts) if parts else None


def _unsigned(part: Part) -> Part:
    """*part* less a signature that stood in a block of its own: its own bytes never had one."""
    if not (isinstance(part, ToolCall) and _is_signed(part)):
        return part
    call = attrs.evolve(part, signature=None)
    return call if part.raw is None else remember(call, part.raw.api, part.raw.text)


def _is_signed(part: Part) -> bool:
    return isinstance(part, ToolCall) and part.signature is not None


def _has_budget(chat: ChatRequest) -> bool:
    return chat.reasoning is not None and (chat.reasoning.budget_tokens or 0) > 0


def _is_foreign(part: object) -> bool:
    return isinstance(part, ReasoningPart) and not is_ours(part)
