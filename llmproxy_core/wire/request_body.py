"""Bodies of requests as a form says them: read, and written with the fewest changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproxy_core.chat import ChatOrigin, ChatRequest, changed
from llmproxy_core.errors import BadRequest, Unsupported
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.jsontext import scan
from llmproxy_core.translation import Translation
from llmproxy_core.wire.form import Changes, Form
from llmproxy_core.wire.members import Members, RawMembers
from llmproxy_core.wire.plan import DEFAULTS, Plan, plan_of, said_fields, written
from llmproxy_core.wire.splice import decode_object, join_object, with_members
from llmproxy_core.wire.wire import Wire

CONVERSATION = frozenset({"messages", "tools"})
"""The fields that hold most of a body."""


def read_request(api: str, form: Form, body: bytes) -> ChatRequest:
    """The meaning of *body* in *form*; *api* is the Api's form. BadRequest names the member that is wrong."""
    wire = Wire(api)
    raws = scan(body).raws
    left = dict(raws)
    members = Members.of(left, wire.fail)
    values: dict[str, Any] = {"model": None}
    for number in _read_values(plan_of(form), left, values):
        values |= form[number].read(members, wire)
    before = ChatRequest(**values, extra=members.rest() if left else {})
    return changed(before, origin=ChatOrigin(api, RawMembers(raws), before, body))


def read_parameters(api: str, form: Form, body: bytes) -> ChatRequest:
    """See Dialect.read_parameters; *api* is the Api's form."""
    try:
        left = decode_object(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The request body is no JSON object") from None
    wire = Wire(api)
    members = Members.of(left, wire.fail)
    values: dict[str, Any] = {"model": None, "messages": ()}
    for number in _read_values(plan_of(form), left, values):
        if not CONVERSATION.issuperset(form[number].fields):
            values |= form[number].read(members, wire)
    return ChatRequest(**values)


def _read_values(plan: Plan, left: dict[str, msgspec.Raw], values: dict[str, Any]) -> list[int]:
    """Take the members that are one value each out of *left*; the groups that have to be asked for the rest."""
    numbers = set(plan.always_read)
    for name in list(left):
        if (found := plan.values.get(name)) is not None:
            try:
                values[found[0]] = found[1](left[name])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # null, or wrong: its group tells
                numbers.update(plan.by_name[name])
            else:
                del left[name]
        elif (groups := plan.by_name.get(name)) is not None:
            numbers.update(groups)
    return sorted(numbers)


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
    plan, said = plan_of(form), said_fields(chat)
    if not plan.unsaid.isdisjoint(said):
        _refuse_unsaid(plan, chat, None, wire)
    members: Changes = {}
    for number in written(plan, said):
        if (text := plan.texts.get(number)) is not None:
            value = getattr(chat, text[1])
            members[text[0]] = None if value is None else text[2](value)
            continue
        try:
            members |= form[number].write(chat, wire, {})
        except Unsupported as error:
            wire.leave_out(error)
    if chat.extra:
        members |= wire.unknown(chat.extra, "")
    return join_object({name: text for name, text in members.items() if text is not None})


def _changes(form: Form, chat: ChatRequest, origin: ChatOrigin, before: ChatRequest, wire: Wire) -> Changes:
    """What differs from the request as it was read."""
    _refuse_unsaid(plan_of(form), chat, before, wire)
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


def _refuse_unsaid(plan: Plan, chat: ChatRequest, before: ChatRequest | None, wire: Wire) -> None:
    """Refuse a field that is set, and not as it was read, and that no group of the form says."""
    for field, default in DEFAULTS.items():
        if field not in plan.unsaid:
            continue
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
