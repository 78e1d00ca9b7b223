"""
A key of the configuration, as its class declares it.

One `option(...)` is all there is to say about a key: its type and default, what it means, what its value must be.
Validation, `docs/configuration.md` and the JSON Schema are all made from it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, overload

import attrs

from llmproxy_core.frozenmap import FrozenMap

T = TypeVar("T")

_METADATA = "llmproxy.option"

Validator = Callable[[Any], None]
"""Takes a value of the field's type (never None); raises ValueError("expected …") when it will not do."""

Refers = Literal["llm", "store", "processor"]
"""The sections whose tables have names of the operator's own."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


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
    refers_to: Refers | None = None
    """The value names a table of this section, or several."""
    env: str | None = attrs.field(default=None)
    """The environment variable that wins over the key."""

    @env.validator
    def _check_env(self, _: object, name: str | None) -> None:
        if name is not None and not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")


@overload
def option(
    doc: str,
    *,
    validator: Validator | None = None,
    example: object = None,
    fills_config_value: bool = False,
    secret: bool = False,
    refers_to: Refers | None = None,
    env: str | None = None,
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
    refers_to: Refers | None = None,
    env: str | None = None,
) -> T: ...


def option(
    doc: str,
    *,
    default: object = attrs.NOTHING,
    validator: Validator | None = None,
    example: object = None,
    fills_config_value: bool = False,
    secret: bool = False,
    refers_to: Refers | None = None,
    env: str | None = None,
) -> Any:
    """
    A field of a configuration class that is a key in TOML; fields made otherwise are none.

    Without *default* the key must be written. *validator* runs on every value but None, also on objects made in
    Python. The field's type is what TOML must hold: bool, int, float, str, Literal, an Enum, Money, Secret (written
    `{ env = "NAME" }`), another configuration class (a table), tuple[T, ...], frozenset[T], Mapping[str, T], `T | None`
    for a key that may be absent, unions of these; anything else with `Annotated[T, WrittenAs(...)]`.

    *refers_to*: the value, a str or a tuple of str, names a configured LLM, store or processor. What is not configured
    is a problem of the file, so is an LLM that is switched off; the default is looked up too.

    *env*: an environment variable that wins over the key, wherever it is written, in every table of this type; for
    keys of processors and stores (not of tables inside them) that are a bool, int, float or str. A float whose name
    ends in `_s` may be written as a duration there: "1m30s".
    """

    def validate(_: object, __: attrs.Attribute[Any], value: object) -> None:
        if value is not None and validator is not None:
            validator(value)

    return attrs.field(
        default=default,
        validator=None if validator is None else validate,
        metadata={_METADATA: Option(doc, example, validator, fills_config_value, secret, refers_to, env)},
        kw_only=True,
    )


def option_of(field: attrs.Attribute[Any]) -> Option | None:
    """What `option` said of *field*; None when it is no key."""
    found = field.metadata.get(_METADATA)
    return found if isinstance(found, Option) else None


def options(config: type[Any]) -> Iterator[tuple[attrs.Attribute[Any], Option]]:
    """
    The keys of the configuration class *config*, in order, their types resolved.

    TypeError when one has an environment variable, and a type that no variable can hold.
    """
    attrs.resolve_types(config)
    for field in attrs.fields(config):
        declared = option_of(field)
        if declared is not None:
            if declared.env is not None:
                variable_type(field)
            yield field, declared


def variable_type(field: attrs.Attribute[Any]) -> type[bool | int | float | str]:
    """What the environment variable of *field* holds, its types resolved; TypeError when that is nothing it can."""
    kind: Any = field.type
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        kind = members[0] if len(members) == 1 else kind
    if kind not in (bool, int, float, str):
        raise TypeError(f"{field.name}: a key with env must be a bool, int, float or str")
    return kind  # type: ignore[no-any-return]


def _frozen(schema: Mapping[str, object]) -> Mapping[str, object]:
    return FrozenMap(schema)


@attrs.frozen
class WrittenAs:
    """
    In `Annotated[T, WrittenAs(form, read)]`: TOML holds a *form*, from which *read* makes the T.

    *form* is any type an option may have; documentation and schema show it. *read* raises ValueError("expected …"),
    Misread when the mistake is deeper inside, or Misreadings for several. *schema* is what the JSON Schema says besides
    the form.
    """

    form: Any
    read: Callable[[Any], object]
    schema: Mapping[str, object] = attrs.field(default=FrozenMap(), converter=_frozen)


class Misread(ValueError):
    """A value is wrong at *path* (keys, and indexes counted from 0) below the one that was being read."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


class Misreadings(ValueError):
    """Several values are wrong below the one that was being read: *found*, all of them."""

    def __init__(self, found: Sequence[Misread]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = tuple(found)

    @classmethod
    def refuse(cls, found: Sequence[Misread]) -> None:
        """Raise what was *found*; nothing, when that is nothing."""
        if found:
            raise cls(found)


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
    """One of these words."""
    return Check(
        "one of " + ", ".join(f'"{value}"' for value in values),
        lambda value: value in values,
        {"enum": values},
    )


def matches(pattern: str, what: str) -> Check:
    """The whole text matches the regular expression *pattern*; *what* says it in words."""
    compiled = re.compile(pattern, re.ASCII)
    return Check(what, lambda value: compiled.fullmatch(value) is not None, {"pattern": f"^(?:{pattern})$"})


@attrs.frozen
class Each:
    """Every element of an array is valid; all that are not are told."""

    validator: Validator

    def __call__(self, values: Any) -> None:
        found: list[Misread] = []
        for index, value in enumerate(values):
            try:
                self.validator(value)
            except ValueError as error:
                found.append(Misread(str(error), index))
        Misreadings.refuse(found)


def each(validator: Validator) -> Each:
    """For arrays whose elements *validator* looks at."""
    return Each(validator)


@attrs.frozen
class Stated:
    """*validator*, and what the JSON Schema says of it."""

    validator: Validator
    schema: Mapping[str, object] = attrs.field(converter=_frozen)

    def __call__(self, value: object) -> None:
        self.validator(value)


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)


def is_host(text: str) -> bool:
    """
    Whether *text* is a host name, an IPv4 address, or an IPv6 address (with or without brackets).

    The `_` that some networks of containers have in names is taken; what ends in a number must be an address, as
    everybody who resolves it will say.
    """
    if _HOST.fullmatch(text):
        last = text.rstrip(".").rpartition(".")[2]
        return len(text) <= 253 and (not re.fullmatch(r"[0-9]+|0[xX].*", last) or _is_address(text))
    return ":" in text and _is_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
host_name = Check("a host name or IP address", is_host)
not_empty = Check("some text", lambda value: bool(value.strip()), {"minLength": 1})
plain_text = Check(
    "text without control characters",
    lambda value: bool(value) and value.isprintable(),
    {"minLength": 1},
)
