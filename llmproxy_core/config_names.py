"""The names of other tables that a table holds, in the options that have `refers_to`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs

from llmproxy_core.config_path import Place
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.option import Refers, options


@attrs.frozen
class Reference:
    """At *place* stands *name*, which is to be a table of *section*."""

    place: Place
    section: Refers
    name: str


def references(
    config: type[Any], table: Mapping[str, object], place: Place, moved: Mapping[str, Place] = FrozenMap()
) -> Iterator[Reference]:
    """
    The names in *table* (at *place*), which a *config* is made of; defaults, where nothing is written, too.

    They are read as they are written, so that another mistake of the table hides none. *moved*: keys that were written
    elsewhere. What is no string is passed over: it is reported where the table is read.
    """
    for field, declared in options(config):
        where = moved.get(field.name, (*place, field.name))
        value = table.get(field.name, field.default)
        if declared.refers_to is not None:
            if _fits(field.type, value):
                yield from (Reference(at, declared.refers_to, name) for at, name in names(value, where))
        else:
            for kind, inner, inner_place in _tables(field.type, value, where):
                yield from references(kind, inner, inner_place)


def _fits(kind: Any, value: object) -> bool:
    """Whether *value* is the string, or the array, that *kind* asks for: another one is reported for that alone."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if isinstance(value, str):
        return str in members
    return isinstance(value, list | tuple) and any(get_origin(it) in (tuple, frozenset) for it in members)


def names(value: object, place: Place) -> Iterator[tuple[Place, str]]:
    """The string, or the strings of the array, *value*, each with its place; nothing when it is neither."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list | tuple):
        yield from (((*place, index), it) for index, it in enumerate(value) if isinstance(it, str))


def _tables(kind: Any, value: object, place: Place) -> Iterator[tuple[type[Any], Mapping[str, object], Place]]:
    """The tables that *value* of the type *kind* holds, each with its class and its place."""
    origin, arguments = get_origin(kind), get_args(kind)
    if attrs.has(kind):
        if isinstance(value, Mapping):
            yield kind, value, place
        elif isinstance(value, kind):  # a default
            yield kind, {field.name: getattr(value, field.name) for field in attrs.fields(kind)}, place
    elif origin in (Union, UnionType):
        for member in arguments:
            yield from _tables(member, value, place)
    elif origin in (tuple, frozenset) and isinstance(value, list | tuple):
        for index, it in enumerate(value):
            yield from _tables(arguments[0], it, (*place, index))
    elif origin in (Mapping, FrozenMap) and isinstance(value, Mapping):
        for key, it in value.items():
            yield from _tables(arguments[1], it, (*place, key))
