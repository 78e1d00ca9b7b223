"""
A form: which members of a request's body say which fields of the neutral request.

A form is a list of groups. A group reads its members into its fields, and writes them when one of those fields
has changed; so an untouched group keeps its bytes. A variant of the protocol is a form with other groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec

from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire.members import Kind, Members
from llmproxy_core.wire.splice import encode
from llmproxy_core.wire.wire import Wire

Values = dict[str, Any]
"""Fields of ChatRequest by name, checked by the group that read them."""

Changes = dict[str, JSONText | None]
"""Members to set, as JSON text, and to remove (None)."""


@attrs.frozen
class Value:
    """A member that is one value, as a field has it, and how both are told."""

    name: str
    field: str
    decode: Callable[[msgspec.Raw], Any]
    encode: Callable[[Any], JSONText]


@attrs.frozen(eq=False)
class Group:
    """Some members and the *fields* they say."""

    fields: tuple[str, ...]
    read: Callable[[Members, Wire], Values]
    write: Callable[[ChatRequest, Wire, Mapping[str, JSONText]], Changes]
    """Its last argument: the members the request was read from, empty for one that is written anew."""
    names: frozenset[str] | None = None
    """Its members: when a body has none of them, `read` need not be called. None: it always is."""
    says_nothing: bool = False
    """Whether fields that are not set say nothing, so that `write` need not be called for a request written anew."""
    value: Value | None = None
    """What is read and written without `read` and `write`, unless it is wrong, or there already."""


Form = tuple[Group, ...]


def value(field: str, kind: Kind[Any], *names: str) -> Group:
    """
    One value under the first of *names* that is there (default: the field's own name).

    A change is written to each of the names that was in use, and to the first name when none was.
    """
    names = names or (field,)

    def read(members: Members, _: Wire) -> Values:
        found = [members.take(name, kind) for name in names]
        return {field: next((each for each in found if each is not None), None)}

    def write(chat: ChatRequest, _: Wire, before: Mapping[str, JSONText]) -> Changes:
        text = None if (now := getattr(chat, field)) is None else encode(now)
        used = [name for name in names if before.get(name, b"null") != b"null"]
        return dict.fromkeys(used or names[:1], text)

    simple = Value(names[0], field, kind.decode, encode) if len(names) == 1 else None
    return Group((field,), read, write, frozenset(names), says_nothing=True, value=simple)


def unsaid(*fields: str) -> Group:
    """Advice of other protocols that this one does without: it is dropped, not refused."""
    return Group(fields, lambda members, wire: {}, lambda chat, wire, before: {}, frozenset(), says_nothing=True)


def json(field: str, name: str | None = None) -> Group:
    """JSON that is passed on as it is."""
    name = name or field

    def read(members: Members, _: Wire) -> Values:
        return {field: members.raw(name)}

    def write(chat: ChatRequest, _: Wire, __: Mapping[str, JSONText]) -> Changes:
        return {name: getattr(chat, field)}

    return Group((field,), read, write, frozenset({name}), says_nothing=True)


def strings(field: str, kind: Kind[Any]) -> Group:
    """A list of strings, or (where *kind* allows it) one string; an empty one is not written."""

    def read(members: Members, _: Wire) -> Values:
        found = members.take(field, kind)
        return {field: (found,) if isinstance(found, str) else tuple(found or ())}

    def write(chat: ChatRequest, _: Wire, before: Mapping[str, JSONText]) -> Changes:
        now: tuple[str, ...] = getattr(chat, field)
        if not now:
            return {field: None}
        was_string = before.get(field, b"").startswith(b'"')
        return {field: encode(now[0] if was_string and len(now) == 1 else now)}

    return Group((field,), read, write, frozenset({field}), says_nothing=True)
