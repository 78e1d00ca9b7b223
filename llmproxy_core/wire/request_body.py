"""Bodies of requests as a form says them: read, and written with the fewest changes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import attrs

from llmproxy_core.chat import ChatOrigin, ChatRequest
from llmproxy_core.errors import Unsupported
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.jsontext import scan
from llmproxy_core.translation import Translation
from llmproxy_core.wire.form import Changes, Form
from llmproxy_core.wire.members import Members, RawMembers
from llmproxy_core.wire.splice import join_object, with_members
from llmproxy_core.wire.wire import Wire

_ELSEWHERE = frozenset({"model", "stream", "wants_usage"})
"""What names the model and asks for a stream may stand outside of the body."""

_DEFAULTS: dict[str, Any] = {
    field.name: () if field.default == () else field.default
    for field in attrs.fields(ChatRequest)
    if field.name not in {"extra", "origin", *_ELSEWHERE}
}


def read_request(api: str, form: Form, body: bytes) -> ChatRequest:
    """The meaning of *body* in *form*; *api* is the Api's form. BadRequest names the member that is wrong."""
    wire = Wire(api)
    raws = scan(body).raws
    members = Members.of(dict(raws), wire.fail)
    values: dict[str, Any] = {}
    for group in form:
        if group.names is None or not group.names.isdisjoint(raws):
            values |= group.read(members, wire)
    values.setdefault("model", None)
    extra = members.rest()
    origin = ChatOrigin(api, RawMembers(raws), ChatRequest(**values, extra=extra), body)
    return ChatRequest(**values, extra=extra, origin=origin)


def write_request(api: str, form: Form, chat: ChatRequest, translation: Translation | None = None) -> bytes:
    """
    *chat* in *form*: spliced into what it was read from, or anew.

    What it cannot say is Unsupported; with a *translation* that drops, it is left out.
    """
    origin = chat.origin
    if origin is not None and origin.api == api and isinstance(origin.value, ChatRequest):
        wire = Wire(api, own=True, translation=translation)
        return with_members(origin.text, _changes(form, chat, origin, origin.value, wire))
    wire = Wire(api, own=origin is None, translation=translation)
    _refuse_unsaid(form, chat, None, wire)
    members: Changes = {}
    said = _said(chat)
    for group in form:
        if group.says_nothing and said.isdisjoint(group.fields):
            continue
        try:
            members |= group.write(chat, wire, {})
        except Unsupported as error:
            wire.leave_out(error)
    if chat.extra:
        members |= wire.unknown(chat.extra, "")
    return join_object({name: text for name, text in members.items() if text is not None})


def _changes(form: Form, chat: ChatRequest, origin: ChatOrigin, before: ChatRequest, wire: Wire) -> Changes:
    """What differs from the request as it was read."""
    _refuse_unsaid(form, chat, before, wire)
    changes: Changes = {}
    for group in form:
        if any(_differs(chat, before, field) for field in group.fields):
            changes |= group.write(chat, wire, origin.members)
    if chat.extra is not before.extra:
        changes |= {name: None for name in before.extra if name not in chat.extra}
        changes |= {name: text for name, text in chat.extra.items() if before.extra.get(name) != text}
    return changes


def _said(chat: ChatRequest) -> set[str]:
    """The fields that say something."""
    return {field for field, default in _DEFAULTS.items() if getattr(chat, field) != default} | _ELSEWHERE


def _differs(chat: ChatRequest, before: ChatRequest, field: str) -> bool:
    now, was = getattr(chat, field), getattr(before, field)
    return now is not was and now != was


@lru_cache(64)
def _unsaid(form: Form) -> list[tuple[str, Any]]:
    """The fields that no group of *form* says, and their defaults."""
    said = {field for group in form for field in group.fields}
    return [(field, default) for field, default in _DEFAULTS.items() if field not in said]


def _refuse_unsaid(form: Form, chat: ChatRequest, before: ChatRequest | None, wire: Wire) -> None:
    """Refuse a field that is set, and not as it was read, and that no group of the form says."""
    for field, default in _unsaid(form):
        now = getattr(chat, field)
        if now == default or (before is None and says_nothing(field, now)):
            continue
        if before is None or now != getattr(before, field):
            if field in ADVICE_FIELDS and wire.translation is not None:
                wire.translation.advise(field)
            else:
                wire.refuse(field, f"the field {field!r}")


_USUAL: Mapping[str, object] = FrozenMap({"store": False, "service_tier": "auto", "verbosity": "medium"})
_EMPTY = (b"{}", b"[]", b"null")


def says_nothing(field: str, value: object) -> bool:
    """
    Whether *value* of a ChatRequest's *field* asks for what comes of itself: its loss need not be told.

    Some SDKs send the defaults of their protocol with every request.
    """
    if isinstance(value, bytes):
        return value.translate(None, b" \t\r\n") in _EMPTY
    return value is None or value == "" or (field in _USUAL and value == _USUAL[field])


ADVICE_FIELDS = frozenset({"user", "metadata", "service_tier", "store", "cache_key", "prediction"})
"""Fields that change neither what is answered nor its form."""
