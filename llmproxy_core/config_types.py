"""
Values of TOML to values of the types that options have, by cattrs.

Strict: "3" is no integer and true is no number; an integer will do where a number is asked for. What comes out is
hashable: arrays become tuples, tables FrozenMaps.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import homogenous_tuple_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn, override

from llmproxy_core.config_problem import shown
from llmproxy_core.errors import bug_words, raise_unless_bug
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.money import Money
from llmproxy_core.option import Option, WrittenAs, option_of, options
from llmproxy_core.secret import Secret

T = TypeVar("T")

Hook = Callable[[Any, Any], Any]
HIDDEN = "the value is not shown"
"""A note on an error: what was found must not be repeated."""
_DEEPEST = 32
_ENVIRONMENT: ContextVar[Mapping[str, str]] = ContextVar("_ENVIRONMENT")
"""Where the reading that is under way takes its secrets from."""
_AMOUNT = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)


def expectation(kind: Any) -> str:
    """What TOML must hold for *kind*, in words: "a string", "an array", …"""
    plain = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    if kind in plain:
        return plain[kind]
    origin: object = get_origin(kind)
    if origin is Annotated:
        form = _written_as(kind)
        return expectation(get_args(kind)[0] if form is None else form.form)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(expectation(arg) for arg in get_args(kind) if arg is not NoneType))
    if origin is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(f'"{member.value}"' for member in kind)
    if _is_array(kind):
        return "an array"
    if kind is Secret:
        return '{ env = "NAME" }'
    if kind is Money:
        return 'dollars such as "25.00"'
    return "a table" if _is_table(kind) else "a value"


def structured(kind: type[T], value: object, env: Mapping[str, str], *, needs_secrets: bool = True) -> T:
    """
    The *kind* that *value*, of TOML, describes; secrets come from *env*. Raises the errors of cattrs.

    Without *needs_secrets* a variable that is not set gives a stand-in: the table is switched off and never used.
    """
    read = _ENVIRONMENT.set(env)
    try:
        return _converter(needs_secrets).structure(value, kind)
    finally:
        _ENVIRONMENT.reset(read)


@functools.cache
def _converter(needs_secrets: bool) -> Converter:
    """Kept for the life of the process: it compiles a function for each class that it meets."""
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    scalars: tuple[type[Any], ...] = (bool, int, str, datetime.date, datetime.time, datetime.datetime)
    for kind in scalars:
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(float, _read_float)
    converter.register_structure_hook(Money, _read_money)
    converter.register_structure_hook(Secret, lambda value, _: _read_secret(value, _ENVIRONMENT.get(), needs_secrets))
    converter.register_structure_hook_func(_is_anything, lambda value, _: frozen(value))
    converter.register_structure_hook(Enum, lambda value, kind: _enum(kind)(value, kind))
    converter.register_structure_hook_factory(_is_literal, lambda kind: _choice({it: it for it in get_args(kind)}))
    converter.register_structure_hook_factory(_is_array, lambda kind: _array(kind, converter))
    converter.register_structure_hook_factory(_is_mapping, lambda kind: _mapping(kind, converter))
    converter.register_structure_hook_factory(_is_union, lambda kind: _union(kind, converter))
    converter.register_structure_hook_factory(attrs.has, lambda kind: _table(kind, converter))
    converter.register_structure_hook_factory(
        lambda kind: _written_as(kind) is not None, lambda kind: _written(kind, converter)
    )
    return converter


def frozen(value: object, depth: int = 0) -> object:
    """*value*, any TOML, made unchangeable. ValueError when it is nested too deep."""
    if depth > _DEEPEST:
        raise ValueError(f"expected at most {_DEEPEST} levels of tables and arrays")
    if isinstance(value, Mapping):
        return FrozenMap({str(key): frozen(it, depth + 1) for key, it in value.items()})
    if isinstance(value, list | tuple):
        return tuple(frozen(it, depth + 1) for it in value)
    return value


# -- which types -----------------------------------------------------------------------------------------------------


def _written_as(kind: Any) -> WrittenAs | None:
    origin: object = get_origin(kind)
    if origin is not Annotated:
        return None
    return next((it for it in kind.__metadata__ if isinstance(it, WrittenAs)), None)


def _is_anything(kind: object) -> bool:
    return kind in (object, Any)


def _is_literal(kind: Any) -> bool:
    origin: object = get_origin(kind)
    return origin is Literal


def _is_array(kind: Any) -> bool:
    return get_origin(kind) in (tuple, frozenset)


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) in (Mapping, FrozenMap)


def _is_table(kind: Any) -> bool:
    return _is_mapping(kind) or attrs.has(kind)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def unreadable(config: type[Any], path: str = "") -> Iterator[tuple[str, object]]:
    """The keys of *config*, and of tables in it, whose type no value of TOML is read as; each with that type."""
    for field, _ in options(config):
        yield from _unreadable(field.type, f"{path}{field.name}", (config,))


def _unreadable(kind: Any, path: str, within: tuple[type[Any], ...]) -> Iterator[tuple[str, object]]:
    kind = getattr(kind, "__supertype__", kind)  # of a NewType
    arguments = [it for it in get_args(kind) if it not in (NoneType, ...)]
    if any(kind is it for it in (*_READ, *within)) or _is_anything(kind) or _written_as(kind) is not None:
        return
    if attrs.has(kind):
        for field, _ in options(kind):
            yield from _unreadable(field.type, f"{path}.{field.name}", (*within, kind))
    elif _is_literal(kind):
        if not all(isinstance(it, str) for it in arguments):
            yield path, kind
    elif get_origin(kind) is Annotated:
        yield from _unreadable(arguments[0], path, within)
    elif _is_union(kind) or _is_array(kind):
        for it in arguments:
            yield from _unreadable(it, path, within)
    elif _is_mapping(kind) and arguments[0] is str:
        yield from _unreadable(arguments[1], path, within)
    elif not (isinstance(kind, type) and issubclass(kind, Enum)):
        yield path, kind


_READ = (bool, int, float, str, datetime.date, datetime.time, datetime.datetime, Money, Secret)


# -- scalars ---------------------------------------------------------------------------------------------------------


def _exactly(value: object, kind: type[Any]) -> object:
    if issubclass(kind, Enum):  # cattrs takes a StrEnum for a str
        return _enum(kind)(value, kind)
    if type(value) is not kind:
        raise ValueError(f"expected {expectation(kind)}")
    return value


def _read_float(value: object, _: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError("expected a smaller number") from error
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _read_money(value: object, _: object) -> Money:
    text = value if isinstance(value, str) else "" if isinstance(value, bool) else repr(value)
    if not isinstance(value, str | int | float) or not _AMOUNT.fullmatch(text):
        raise ValueError('expected dollars such as "25.00"')
    return Money.usd(text)


def _read_secret(value: object, env: Mapping[str, str], needed: bool) -> Secret:
    match value:
        case {"env": str(name), **rest} if not rest:
            found = environment_secret(env, name)
            if found is None and needed:
                raise ValueError(not_set(name))
            return found or Secret("-")
        case _:
            error = ValueError('expected { env = "NAME" }: a secret is kept in an environment variable')
            error.add_note(HIDDEN)
            raise error


def environment_secret(env: Mapping[str, str], name: str) -> Secret | None:
    """The secret in the variable *name*, less space around it; None when it is not set, or empty."""
    value = env.get(name, "").strip()
    return Secret(value) if value else None


def not_set(name: str) -> str:
    """
    The message about a variable that is missing.

    The name is repeated only when it looks like one: people also write the key itself here, and a Google or Groq key
    is made of letters, digits and _ too.
    """
    is_name = re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}|[a-z_]{1,40}", name, re.ASCII)
    return f"environment variable {name if is_name else 'with this name'} is not set, or is empty"


def _enum(kind: type[Enum]) -> Hook:
    return _choice({member.value: member for member in kind})


def _choice(values: dict[str, Any]) -> Hook:
    def read(value: object, _: object) -> object:
        if isinstance(value, str) and value in values:
            return values[value]
        close = difflib.get_close_matches(value, values, n=1) if isinstance(value, str) else []
        listed = ", ".join(f'"{it}"' for it in values)
        advice = f'; did you mean "{close[0]}"?' if close else ""
        raise ValueError(f"expected one of {listed}, got {shown(value)}{advice}")

    return read


# -- containers ------------------------------------------------------------------------------------------------------


def _array(kind: Any, converter: Converter) -> Hook:
    is_set = get_origin(kind) is frozenset
    items: Any = tuple.__class_getitem__((get_args(kind)[0], ...)) if is_set else kind
    structure = homogenous_tuple_structure_factory(items, converter)

    def read(value: object, _: object) -> object:
        if not isinstance(value, list | tuple):
            raise ValueError("expected an array")
        found = structure(value, items)
        return frozenset(found) if is_set else found

    return read


def _mapping(kind: Any, converter: Converter) -> Hook:
    structure = mapping_structure_factory(kind, converter, structure_to=FrozenMap, key_type=str)

    def read(value: object, _: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError("expected a table")
        return structure(value, kind)

    return read


def _union(kind: Any, converter: Converter) -> Hook:
    """The first member that has the value's shape reads it, so that its own message is the one that is seen."""
    members = [member for member in get_args(kind) if member is not NoneType]

    def read(value: object, _: object) -> object:
        fitting = [member for member in members if _has_shape(value, member)]
        if not fitting and Secret in members:
            fitting = [Secret]  # it does not repeat what it refuses
        if not fitting:
            raise ValueError(f"expected {expectation(kind)}")
        return converter.structure(value, fitting[0])

    return read


def _has_shape(value: object, kind: Any) -> bool:
    if kind in (bool, int, str):
        return type(value) is kind
    if kind in (float, Money):
        numbers = int | float | str if kind is Money else int | float
        return isinstance(value, numbers) and not isinstance(value, bool)
    if _is_array(kind):
        return isinstance(value, list | tuple)
    if _is_table(kind) or kind is Secret:
        return isinstance(value, Mapping)
    form = _written_as(kind)
    if form is not None:
        return _has_shape(value, form.form)
    if _is_union(kind):
        return any(_has_shape(value, member) for member in get_args(kind))
    return kind is not NoneType


def _written(kind: Any, converter: Converter) -> Hook:
    form = _written_as(kind)
    assert form is not None

    def read(value: object, _: object) -> object:
        return form.read(converter.structure(value, form.form))

    return read


def _table(kind: type[Any], converter: Converter) -> Hook:
    attrs.resolve_types(kind)
    overrides = {}
    for field in attrs.fields(kind):
        declared = option_of(field)
        if declared is None:
            overrides[field.name] = override(omit=True)
        else:
            overrides[field.name] = override(struct_hook=_field(field.type, declared, converter))
    structure = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **overrides)  # type: ignore[arg-type]

    def read(value: object, _: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError("expected a table")
        return structure(value, kind)

    return read


def _field(kind: Any, declared: Option, converter: Converter) -> Hook:
    """Reads the value of a key and validates it at once, so that one wrong key does not hide the next."""

    def read(value: object, _: object) -> object:
        try:
            found = converter.structure(value, kind)
            if declared.validator is not None and found is not None:
                declared.validator(found)
        except BaseException as error:
            if declared.secret:
                error.add_note(HIDDEN)
            if isinstance(error, Exception):
                raise
            raise_unless_bug(error)  # cattrs gathers what is an Exception, and so finds what else is wrong
            raise TypeError(f"its check ended with {bug_words(error)}") from error
        return found

    return read
