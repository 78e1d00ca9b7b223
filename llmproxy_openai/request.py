"""Requests: their head, their meaning, and their bytes with the fewest changes."""

from __future__ import annotations

from typing import Any

import attrs

from llmproxy_core.chat import ChatOrigin, ChatRequest
from llmproxy_core.dialect import RequestHead
from llmproxy_core.jsontext import TopLevel, scan
from llmproxy_openai.chat_form import stream_options
from llmproxy_openai.form import Changes, Form
from llmproxy_openai.members import BOOLEAN, STRING, Members, bad_request, decode
from llmproxy_openai.splice import decode_object, encode, join_object, with_members
from llmproxy_openai.wire import Wire, unsupported

_DEFAULTS: dict[str, Any] = {
    field.name: () if field.default == () else field.default
    for field in attrs.fields(ChatRequest)
    if field.name not in {"extra", "origin"}
}


# -- head ----------------------------------------------------------------------------------------------------


def read_head(body: bytes) -> RequestHead:
    """Check *body* strictly and take what pass-through needs. BadRequest names the member that is wrong."""
    top = scan(body)
    head = RequestHead()
    if (text := top.text("model")) is not None:
        head.model = decode(STRING, text, "model", bad_request)
    if (text := top.text("stream")) is not None:
        head.stream = decode(BOOLEAN, text, "stream", bad_request)
    if (text := top.text("stream_options")) is not None:
        options = Members(text, "stream_options", bad_request)
        asks = options.take("include_usage", BOOLEAN)
        head.wants_usage = head.stream and asks is True
    return head


def prepare(body: bytes, model: str | None, stream: bool | None, *, ask_usage: bool) -> bytes:
    """*body* asking for *model*, streamed or not, and its stream for usage; see `Dialect.prepare`."""
    raws = decode_object(body)
    members = {name: bytes(raws[name]) for name in ("model", "stream", "stream_options") if name in raws}
    changes: Changes = {}
    if model is not None and members.get("model") != (text := encode(model)):
        changes["model"] = text
    was_stream = members.get("stream") == b"true"
    is_stream = was_stream if stream is None else stream
    if is_stream != was_stream:
        changes["stream"] = encode(is_stream)
    options = members.get("stream_options")
    if was_stream and not is_stream and options is not None:
        changes["stream_options"] = None
    elif is_stream and ask_usage:
        changes |= stream_options(True, True, options)
        if changes["stream_options"] == options:
            del changes["stream_options"]
    return TopLevel(body, raws).splice(changes) if changes else body


# -- meaning -------------------------------------------------------------------------------------------------


def read_chat(api: str, form: Form, body: bytes) -> ChatRequest:
    """The meaning of *body* in *form*. BadRequest names the member that is wrong."""
    wire = Wire(api)
    raws = scan(body).raws
    members = Members(body, "", wire.fail)
    values: dict[str, Any] = {}
    for group in form:
        values |= group.read(members, wire)
    chat = ChatRequest(**values, extra=members.rest())
    origin = ChatOrigin(api, {name: bytes(raw) for name, raw in raws.items()}, chat, body)
    return attrs.evolve(chat, origin=origin)


def write_chat(api: str, form: Form, chat: ChatRequest) -> bytes:
    """*chat* in *form*: spliced into what it was read from, or anew. Unsupported for what it cannot say."""
    origin = chat.origin
    if origin is not None and origin.api == api and isinstance(origin.value, ChatRequest):
        return with_members(origin.text, _changes(form, chat, origin, origin.value, Wire(api, own=True)))
    wire = Wire(api, own=origin is None)
    _refuse_unsaid(form, chat, None)
    members: Changes = {}
    for group in form:
        members |= group.write(chat, wire, {})
    members |= wire.unknown(chat.extra, "")
    return join_object({name: text for name, text in members.items() if text is not None})


def _changes(form: Form, chat: ChatRequest, origin: ChatOrigin, before: ChatRequest, wire: Wire) -> Changes:
    """What differs from the request as it was read."""
    _refuse_unsaid(form, chat, before)
    changes: Changes = {}
    for group in form:
        if any(_differs(chat, before, field) for field in group.fields):
            changes |= group.write(chat, wire, origin.members)
    if chat.extra is not before.extra:
        changes |= {name: None for name in before.extra if name not in chat.extra}
        changes |= {name: text for name, text in chat.extra.items() if before.extra.get(name) != text}
    return changes


def _differs(chat: ChatRequest, before: ChatRequest, field: str) -> bool:
    now, was = getattr(chat, field), getattr(before, field)
    return now is not was and now != was


def _refuse_unsaid(form: Form, chat: ChatRequest, before: ChatRequest | None) -> None:
    """Unsupported for a field that is set, and not as it was read, and that no group of the form says."""
    said = {field for group in form for field in group.fields}
    for field, default in _DEFAULTS.items():
        now = getattr(chat, field)
        if field not in said and now != default and (before is None or now != getattr(before, field)):
            raise unsupported(field, f"the field {field!r}")
