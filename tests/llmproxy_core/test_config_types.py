"""The types that an option may have, as a plugin's author uses them."""

import datetime
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal

import attrs
import pytest

from llmproxy_core.config_problem import Problems
from llmproxy_core.config_read import TableReader
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.money import Money
from llmproxy_core.option import (
    Misread,
    WrittenAs,
    each,
    non_negative,
    not_empty,
    one_of,
    option,
    options,
    positive,
)
from llmproxy_core.secret import Secret


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen(kw_only=True)
class Inner:
    """A table in a table."""

    size: int = option("How big.", validator=positive)


def read_even(written: int) -> int:
    if written % 2:
        raise ValueError("expected an even number")
    return written


@attrs.frozen(kw_only=True)
class Everything:
    """One key of each kind."""

    flag: bool = option("a", default=False)
    number: float = option("b", default=1.0)
    names: frozenset[str] = option("c", default=frozenset())
    colours: tuple[Colour, ...] = option("d", default=(), example=["red"])
    mode: Literal["fast", "slow"] = option("e", default="fast")
    inner: Inner | None = option("f", default=None)
    inners: tuple[Inner, ...] = option("g", default=())
    by_name: Mapping[str, Inner] = option("h", default=FrozenMap())
    either: int | str | None = option("i", default=None)
    anything: object = option("j", default=None)
    budget: Money | None = option("k", default=None)
    secret: Secret | None = option("l", default=None)
    hidden: int = option("m", default=0, validator=non_negative, secret=True)
    even: Annotated[int, WrittenAs(int, read_even)] = option("n", default=0)
    plain: Annotated[int, "no form"] = option("o", default=0)
    day: datetime.date | None = option("p", default=None)
    word: str = option("q", default="a", validator=one_of("a", "b"))
    words: tuple[str, ...] = option("r", default=(), validator=each(not_empty))
    no_key: int = 7


@attrs.frozen(kw_only=True)
class Ordered:
    """Two keys that depend on each other."""

    low: int = option("Lowest.")
    high: int = option("Highest.")

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


def fails(value: object) -> None:
    raise LookupError("a mistake of the plugin")


@attrs.frozen(kw_only=True)
class Faulty:
    """Its own check is wrong."""

    key: int = option("A key.", default=0, validator=fails)


def read(config: type[Any], **table: object) -> Any:
    problems = Problems()
    found = TableReader(problems, {"KEY": "s"}).read(config, table, ("t",))
    assert not problems.errors
    return found


def mistakes(config: type[Any], **table: object) -> dict[str, str]:
    problems = Problems()
    assert TableReader(problems, {"KEY": "s"}).read(config, table, ("t",)) is None
    return {problem.path: problem.message for problem in problems.errors}


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("flag", True, True),
        ("number", 3, 3.0),
        ("names", ["a", "b", "a"], frozenset({"a", "b"})),
        ("colours", ["red", "blue"], (Colour.RED, Colour.BLUE)),
        ("mode", "slow", "slow"),
        ("inner", {"size": 3}, Inner(size=3)),
        ("inners", [{"size": 3}], (Inner(size=3),)),
        ("by_name", {"x": {"size": 3}}, FrozenMap({"x": Inner(size=3)})),
        ("either", 3, 3),
        ("either", "a", "a"),
        ("anything", {"a": [{"b": 1}]}, FrozenMap({"a": (FrozenMap({"b": 1}),)})),
        ("budget", "25.00", Money.usd(25)),
        ("budget", 2.5, Money.usd("2.5")),
        ("secret", {"env": "KEY"}, Secret("s")),
        ("even", 4, 4),
        ("plain", 4, 4),
        ("day", datetime.date(2026, 1, 2), datetime.date(2026, 1, 2)),
        ("word", "b", "b"),
    ],
)
def test_a_value_is_read_as_its_type_and_hashable(key: str, written: object, value: object) -> None:
    found = read(Everything, **{key: written})

    assert getattr(found, key) == value
    assert isinstance(hash(found), int)


@pytest.mark.parametrize(
    ("key", "written", "place", "message"),
    [
        ("names", "a", "t.names", 'expected an array, got "a"'),
        ("names", ["a", 1], "t.names[2]", "expected a string, got 1"),
        ("colours", ["rd"], "t.colours[1]", 'expected one of "red", "blue", got "rd"; did you mean "red"?'),
        ("inner", 3, "t.inner", "expected a table, got 3"),
        ("inner", {"size": -1}, "t.inner.size", "expected a number above 0, got -1"),
        ("inners", [{"size": 1}, {}], "t.inners[2].size", "missing; expected an integer"),
        ("by_name", {"x": {"sise": 1}}, "t.by_name.x.size", "missing; expected an integer"),
        ("either", 1.5, "t.either", "expected an integer or a string, got 1.5"),
        ("budget", "-", "t.budget", 'expected dollars such as "25.00", got "-"'),
        ("budget", True, "t.budget", 'expected dollars such as "25.00", got true'),
        ("secret", {"env": "NONE"}, "t.secret", "environment variable NONE is not set, or is empty"),
        ("hidden", -42, "t.hidden", "expected 0 or more"),
        ("even", 3, "t.even", "expected an even number, got 3"),
        ("word", "c", "t.word", 'expected one of "a", "b", got "c"'),
        ("words", ["a", " "], "t.words[2]", 'expected some text, got " "'),
        ("day", "2026-01-02", "t.day", 'expected a value, got "2026-01-02"'),
        ("no_key", 3, "t.no_key", None),
    ],
)
def test_a_wrong_value_is_told(key: str, written: object, place: str, message: str | None) -> None:
    found = mistakes(Everything, **{key: written})

    assert place in found
    if message is not None:
        assert found[place] == message


def test_a_field_that_is_no_option_is_no_key() -> None:
    assert "no_key" not in {field.name for field, _ in options(Everything)}
    assert read(Everything).no_key == 7


def test_what_is_nested_too_deep_is_refused() -> None:
    value: object = 1
    for _ in range(100):
        value = {"a": value}

    assert "at most 32 levels" in mistakes(Everything, anything=value)["t.anything"]


def test_a_check_of_the_whole_table_is_told_at_the_table() -> None:
    assert mistakes(Ordered, low=2, high=1) == {"t": "low is above high"}


def test_a_mistake_in_a_plugins_check_is_a_problem_of_that_key() -> None:
    assert mistakes(Faulty, key=1) == {"t.key": "LookupError: a mistake of the plugin"}


def test_a_misread_value_is_told_at_its_own_place() -> None:
    def read_pairs(written: Mapping[str, tuple[int, ...]]) -> object:
        raise Misread("expected something else", "a", 1)

    @attrs.frozen(kw_only=True)
    class Pairs:
        """Pairs."""

        pairs: Annotated[object, WrittenAs(Mapping[str, tuple[int, ...]], read_pairs)] = option("Pairs.")

    assert mistakes(Pairs, pairs={"a": [1, 2]}) == {"t.pairs.a[2]": "expected something else, got 2"}


def test_a_frozen_map_is_equal_to_any_mapping_of_the_same_content() -> None:
    one, other = FrozenMap({"a": 1, "b": 2}), FrozenMap([("b", 2), ("a", 1)])

    assert one == other == {"a": 1, "b": 2}
    assert hash(one) == hash(other)
    assert repr(one) == "FrozenMap({'a': 1, 'b': 2})"
    assert len(one) == 2
