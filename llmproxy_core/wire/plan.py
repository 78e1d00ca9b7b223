"""What of a form a body needs, looked up by the members that are there and by the fields that say something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import is_not
from typing import Any

import attrs
import msgspec

from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire.form import Form

ELSEWHERE = frozenset({"model", "stream", "wants_usage"})
"""What names the model and asks for a stream may stand outside of the body."""

_FIELDS = attrs.fields(ChatRequest)
_SILENT = ("extra", "origin", *ELSEWHERE)

DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in _FIELDS if field.name not in _SILENT}
"""What the fields hold that say nothing."""

_DEFAULT_OF = {field.name: field.default for field in _FIELDS}
_NAMES = tuple(field.name for field in _FIELDS)
_UNSAID = tuple(field.default for field in _FIELDS)


@attrs.frozen(eq=False)
class Plan:
    """A form, looked up; its groups are known by their numbers, in the order of the form."""

    by_name: Mapping[str, Sequence[int]]
    """The groups of each member."""
    always_read: frozenset[int]
    values: Mapping[str, tuple[str, Callable[[msgspec.Raw], Any]]]
    """Members that are one value: the field that says it, and what decodes it."""
    by_field: Mapping[str, Sequence[int]]
    """The groups of each field that are written only where it says something."""
    always_written: frozenset[int]
    texts: Mapping[int, tuple[str, str, Callable[[Any], JSONText]]]
    """The groups that are one value: their member, its field, and what encodes it."""
    unsaid: frozenset[str]
    """The fields that no group says."""


@lru_cache(64)
def plan_of(form: Form) -> Plan:
    """The plan of *form*."""
    said = {field for group in form for field in group.fields}
    silent = [number for number, group in enumerate(form) if group.says_nothing]
    by_name: dict[str, list[int]] = {}
    for number, group in enumerate(form):
        for name in group.names or ():
            by_name.setdefault(name, []).append(number)
    values = {number: group.value for number, group in enumerate(form) if group.value is not None}
    return Plan(
        by_name=by_name,
        always_read=frozenset(number for number, group in enumerate(form) if group.names is None),
        values={it.name: (it.field, it.decode) for it in values.values() if len(by_name[it.name]) == 1},
        by_field={field: [it for it in silent if field in form[it].fields] for field in _NAMES},
        always_written=frozenset(
            number
            for number, group in enumerate(form)
            if number not in silent or not ELSEWHERE.isdisjoint(group.fields)
        ),
        texts={number: (it.name, it.field, it.encode) for number, it in values.items()},
        unsaid=frozenset(DEFAULTS) - said,
    )


@lru_cache(256)
def written(plan: Plan, said: tuple[str, ...]) -> list[int]:
    """The groups to write where the fields *said* say something."""
    numbers = set(plan.always_written)
    for field in said:
        numbers.update(plan.by_field[field])
    return sorted(numbers)


def said_fields(chat: ChatRequest) -> tuple[str, ...]:
    """The fields that say something, in their order."""
    values = msgspec.structs.astuple(chat)  # type: ignore[arg-type]  # a node is a Struct underneath
    others = compress(_NAMES, map(is_not, values, _UNSAID))
    return tuple([name for name in others if getattr(chat, name) != _DEFAULT_OF[name]])
