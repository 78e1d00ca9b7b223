"""
A key of the configuration, as its class declares it.

One `option(...)` is all there is to say about a key: its type and default, what it means, what its value must be.
Validation, `docs/configuration.md` and the JSON Schema are all made from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

import attrs

from llmproxy_core.frozenmap import FrozenMap

T = TypeVar("T")

_METADATA = "llmproxy.option"

Validator = Callable[[Any], None]
"""Takes a value of the field's type (never None); raises ValueError("expected …") when it will not do."""


@attrs.frozen
class Option:
    """What is known of a key besides its name, type and default."""

    doc: str
    """One sentence or two, for the reference; units are said."""
    example: object = None
    """A value as it is written in TOML."""
    validator: Validator | None = None
    fills_config_value: bool = False
    """`config_value = …` in the table of a processor is this key; at most one of a class."""
    secret: bool = False
    """A value is never shown, not even a wrong one."""


@overload
def option(
    doc: str,
    *,
    validator: Validator | None = None,
    example: object = None,
    fills_config_value: bool = False,
    secret: bool = False,
) -> Any: ...


@overload
def option(
    doc: str,
    *,
    default: T,
    validator: Validator | None = None,
    example: object = None,
    fills_config_value: bool = False,
    secret: bool = False,
) -> T: ...


def option(
    doc: str,
    *,
    default: object = attrs.NOTHING,
    validator: Validator | None = None,
    example: object = None,
    fills_config_value: bool = False,
    secret: bool = False,
) -> Any:
    """
    A field of a configuration class that is a key in TOML; fields made otherwise are none.

    Without *default* the key must be written. *validator* runs on every value but None, also on objects made in
    Python. The field's type is what TOML must hold: bool, int, float, str, Literal, an Enum, Money, Secret (written
    `{ env = "NAME" }`), another configuration class (a table), tuple[T, ...], frozenset[T], Mapping[str, T], `T | None`
    for a key that may be absent, unions of these; anything else with `Annotated[T, WrittenAs(...)]`.
    """

    def validate(_: object, __: attrs.Attribute[Any], value: object) -> None:
        if value is not None and validator is not None:
            validator(value)

    return attrs.field(
        default=default,
        validator=None if validator is None else validate,
        metadata={_METADATA: Option(doc, example, validator, fills_config_value, secret)},
        kw_only=True,
    )


def option_of(field: attrs.Attribute[Any]) -> Option | None:
    """What `option` said of *field*; None when it is no key."""
    found = field.metadata.get(_METADATA)
    return found if isinstance(found, Option) else None


def options(config: type[Any]) -> Iterator[tuple[attrs.Attribute[Any], Option]]:
    """The keys of the configuration class *config*, in order, their types resolved."""
    attrs.resolve_types(config)
    for field in attrs.fields(config):
        declared = option_of(field)
        if declared is not None:
            yield field, declared


@attrs.frozen
class WrittenAs:
    """
    In `Annotated[T, WrittenAs(form, read)]`: TOML holds a *form*, from which *read* makes the T.

    *form* is any type an option may have; documentation and schema show it. *read* raises ValueError("expected …"),
    or Misread when the mistake is deeper inside.
    """

    form: Any
    read: Callable[[Any], object]


class Misread(ValueError):
    """A value is wrong at *path* (keys, and indexes counted from 0) below the one that was being read."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


def _frozen(schema: Mapping[str, object]) -> Mapping[str, object]:
    return FrozenMap(schema)


@attrs.frozen
class Check:
    """A validator that can also say what it accepts: *schema* is its part of the JSON Schema."""

    expected: str
    """Completes "expected …"."""
    holds: Callable[[Any], bool]
    schema: Mapping[str, object] = attrs.field(default=FrozenMap(), converter=_frozen)

    def __call__(self, value: object) -> None:
        if not self.holds(value):
            raise ValueError(f"expected {self.expected}")


def between(lowest: float, highest: float, what: str = "a number") -> Check:
    """Both ends included."""
    return Check(
        f"{what} from {lowest} to {highest}",
        lambda value: lowest <= value <= highest,
        {"minimum": lowest, "maximum": highest},
    )


def one_of(*values: str) -> Check:
    return Check(
        "one of " + ", ".join(f'"{value}"' for value in values),
        lambda value: value in values,
        {"enum": values},
    )


def matches(pattern: str, what: str) -> Check:
    """The whole text matches the regular expression *pattern*; *what* says it in words."""
    compiled = re.compile(pattern, re.ASCII)
    return Check(what, lambda value: compiled.fullmatch(value) is not None, {"pattern": f"^(?:{pattern})$"})


def each(validator: Validator) -> Validator:
    """Every element of an array is valid."""

    def check(values: Any) -> None:
        for index, value in enumerate(values):
            try:
                validator(value)
            except ValueError as error:
                raise Misread(str(error), index) from error

    return check


positive = Check("a number above 0", lambda value: value > 0, {"exclusiveMinimum": 0})
non_negative = Check("0 or more", lambda value: value >= 0, {"minimum": 0})
seconds = between(0, 1_000_000_000, "a number of seconds")
some_seconds = Check(
    "a number of seconds above 0, at most 1000000000",
    lambda value: 0 < value <= 1_000_000_000,
    {"exclusiveMinimum": 0, "maximum": 1_000_000_000},
)
count = between(0, 1_000_000_000, "a count")
byte_size = between(1, 1 << 50, "a number of bytes")
port = between(0, 65535, "a TCP port")
not_empty = Check("some text", lambda value: bool(value.strip()), {"minLength": 1})
plain_text = Check(
    "text without control characters",
    lambda value: bool(value) and value.isprintable(),
    {"minLength": 1},
)
