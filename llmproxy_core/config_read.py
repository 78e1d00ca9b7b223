"""Reads the tables of a configuration one by one, and collects what is wrong in each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import attrs
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)

from llmproxy_core.config_path import Place, value_at
from llmproxy_core.config_problem import Problems, nearest, shown
from llmproxy_core.config_types import HIDDEN, expectation, structured
from llmproxy_core.errors import bug_words, own_words, raise_unless_bug
from llmproxy_core.option import Misread, Misreadings, options

T = TypeVar("T")

_INLINE_SECRETS = frozenset(
    ["token", "key", "api_key", "apikey", "api_token", "auth_token", "access_token", "secret", "password"]
)


@attrs.frozen
class _Fault:
    place: Place
    message: str
    shows_value: bool = True
    is_secret: bool = False
    """Its value is shown by no message, its author's neither."""


@attrs.frozen
class _Attempt(Generic[T]):
    value: T | None
    faults: list[_Fault] = attrs.field(factory=list)


@attrs.frozen
class Rest(Generic[T]):
    """A table without the *keys* that are wrong in it. The value is None when it cannot do without one of them."""

    value: T | None = None
    keys: frozenset[str] = frozenset()


class TableReader:
    """Makes configuration objects of tables; what is wrong goes to *problems*."""

    def __init__(self, problems: Problems, env: Mapping[str, str]) -> None:
        self._problems = problems
        self._env = env

    def read(
        self,
        config: type[T],
        table: object,
        place: Place,
        *,
        moved: Mapping[str, Place] | None = None,
        needs_secrets: bool = True,
    ) -> T | None:
        """
        The *config* that *table* (at *place*) describes; None when there was a problem.

        *moved*: keys that were written elsewhere, for the places in problems.
        """
        found = self._attempt(config, table, needs_secrets)
        for fault in found.faults:
            self._report(fault, table, place, moved or {})
        return found.value

    def rest(self, config: type[T], table: object, stand_ins: Mapping[str, object]) -> Rest[T]:
        """
        What is left of *table*, which `read` reported: enough to look for mistakes between tables, not to be used.

        *stand_ins* are values for keys that must be written and are not, or wrongly.
        """
        faults = self._attempt(config, table, needs_secrets=False).faults
        keys = frozenset(str(fault.place[0]) for fault in faults if fault.place)
        if not isinstance(table, Mapping):
            return Rest(None, keys)
        sound = {key: value for key, value in table.items() if key not in keys}
        sound |= {key: stand_ins[key] for key in keys & stand_ins.keys()}
        return Rest(self._attempt(config, sound, needs_secrets=False).value, keys)

    def _attempt(self, config: type[T], table: object, needs_secrets: bool) -> _Attempt[T]:
        try:
            return _Attempt(structured(config, table, self._env, needs_secrets=needs_secrets))
        except BaseException as error:  # noqa: BLE001 - a plugin's own check may raise anything; no table may stop the others
            raise_unless_bug(error)
            return _Attempt(None, list(_faults(error, config, ())))

    def _report(self, fault: _Fault, table: object, place: Place, moved: Mapping[str, Place]) -> None:
        message = fault.message
        if fault.is_secret:
            with contextlib.suppress(LookupError):
                message = _without(message, value_at(table, fault.place))
        elif fault.shows_value and message.startswith("expected") and ", got " not in message:
            with contextlib.suppress(LookupError):
                value = value_at(table, fault.place)
                if fault.place or not isinstance(value, Mapping):  # it is wrong as a whole, which its author knows
                    message += f", got {shown(value)}"
        first, rest = fault.place[:1], fault.place[1:]
        where = moved[str(first[0])] if first and str(first[0]) in moved else place + first
        self._problems.add(where + rest, message)


def _faults(error: BaseException, kind: Any, place: Place) -> Iterator[_Fault]:
    """What an error of cattrs says, one by one, with its place below the table that was read."""
    if isinstance(error, ClassValidationError | IterableValidationError):
        for inner in error.exceptions:
            part, inner_kind = _note(inner)
            below = place if part is None else (*place, part)
            if isinstance(inner, KeyError) and isinstance(part, str) and inner.args == (part,):
                yield _missing(part, inner_kind, error.cl, below)
                continue
            hidden = HIDDEN in getattr(inner, "__notes__", ())
            for fault in _faults(inner, kind if part is None else inner_kind, below):
                yield attrs.evolve(fault, is_secret=True) if hidden else fault
    elif isinstance(error, ForbiddenExtraKeysError):
        yield from (_unknown_key(str(key), error.cl, place) for key in sorted(error.extra_fields, key=str))
    elif isinstance(error, Misreadings):
        for one in error.found:
            yield _Fault(place + one.path, str(one), is_secret=HIDDEN in getattr(error, "__notes__", ()))
    elif isinstance(error, Misread):
        yield _Fault(place + error.path, str(error), is_secret=HIDDEN in getattr(error, "__notes__", ()))
    else:
        text = own_words(error) if isinstance(error, ValueError) else bug_words(error)
        yield _Fault(place, text or "not valid", is_secret=HIDDEN in getattr(error, "__notes__", ()))


def _without(message: str, value: object) -> str:
    """*message*, which is not to show *value*, nor how it begins."""
    begun = value[:8] if isinstance(value, str) else ", got "
    if not begun or begun not in message:
        return message
    message = message.partition(", got ")[0]
    return "not valid" if begun in message else message


def _missing(key: str, kind: Any, config: type[Any], place: Place) -> _Fault:
    example = next((declared.example for field, declared in options(config) if field.name == key), None)
    such = "" if example is None or isinstance(example, dict) else f" such as {_toml(example)}"
    return _Fault(place, f"missing; expected {expectation(kind)}{such}", shows_value=False)


def _toml(example: object) -> str:
    return "[" + ", ".join(map(shown, example)) + "]" if isinstance(example, list) else shown(example)


def _note(error: BaseException) -> tuple[str | int | None, Any]:
    """Which part of its container *error* is about, and that part's type."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name, note.type
        if isinstance(note, IterableValidationNote):
            return note.index, note.type
    return None, None


def _unknown_key(key: str, config: type[Any], place: Place) -> _Fault:
    keys = [field.name for field, _ in options(config)]
    if key.lower() in _INLINE_SECRETS:
        advice = "a secret does not belong into the file: put it into an environment variable"
        message = f"{advice} and name it in token_env" if "token_env" in keys else f"unknown key; {advice}"
    else:
        message = f"unknown key; {nearest(key, keys, 'known')}"
    return _Fault((*place, key), message, shows_value=False)
