"""Requests: their head, and their bytes with the fewest changes."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from llmproxy_anthropic.conversation import may_think
from llmproxy_anthropic.thinking_block import is_ours
from llmproxy_core import SEAL_MARK, RequestHead, unseal
from llmproxy_core.chat import ChatRequest, Message, Part, ReasoningPart, ToolCall, remember
from llmproxy_core.wire import (
    BOOLEAN,
    STRING,
    Changes,
    Form,
    bad_request,
    decode,
    decode_array,
    decode_object,
    encode,
    join_array,
    read_request,
    scan,
    with_items,
    with_members,
    write_request,
)

_CLEARS = b'"clear_thinking'
_SEAL = b'"' + SEAL_MARK
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
        written = with_members(written, {"thinking": None})
    return without_clearing(body, _without_orphans(written))


# -- members that must go with others ------------------------------------------------------------------------


def without_clearing(was: bytes, now: bytes) -> bytes:
    """*now*, made of the request *was*; where that lost its thinking, without what clears it away: it is refused."""
    try:
        if _CLEARS not in now or not _thinks(was) or _thinks(now):
            return now
        managed = _decode_body(now).context_management
    except msgspec.MsgspecError:
        return now  # the provider says what is wrong with it
    kept = [bytes(edit) for edit in managed.edits if not _decode_typed(edit).type.startswith("clear_thinking")]
    if len(kept) == len(managed.edits):
        return now
    if kept:
        text = bytes(decode_object(now)["context_management"])
        return with_members(now, {"context_management": with_members(text, {"edits": join_array(kept)})})
    return with_members(now, {"context_management": None})


def _thinks(body: bytes) -> bool:
    thinking = _decode_body(body).thinking
    return thinking is not None and thinking.type != "disabled"


# -- signatures of calls that are gone -----------------------------------------------------------------------


def _without_orphans(body: bytes) -> bytes:
    """*body* without signatures of calls that do not follow them any more; a message with nothing else goes too."""
    if _SEAL not in body:
        return body
    text = bytes(decode_object(body)["messages"])
    lessened = [_without_seals(bytes(message)) for message in decode_array(text)]
    return with_members(body, {"messages": with_items(text, [message for message in lessened if message is not None])})


def _without_seals(message: bytes) -> bytes | None:
    content = bytes(decode_object(message).get("content", b"null"))
    if _SEAL not in message or not content.startswith(b"["):
        return message
    blocks = [bytes(block) for block in decode_array(content)]
    kept = [block for block in blocks if not _is_sealed(block)]
    if not kept:
        return None if blocks else message
    return message if len(kept) == len(blocks) else with_members(message, {"content": join_array(kept)})


def _is_sealed(block: bytes) -> bool:
    typed = _decode_typed(block)
    return typed.type == "redacted_thinking" and isinstance(typed.data, str) and unseal(typed.data) is not None


class _Typed(msgspec.Struct):
    type: str = ""
    data: Any = None


class _Managed(msgspec.Struct):
    edits: list[msgspec.Raw] = []


class _Body(msgspec.Struct):
    thinking: _Typed | None = None
    context_management: _Managed = msgspec.field(default_factory=_Managed)


_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_body = msgspec.json.Decoder(_Body).decode


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
