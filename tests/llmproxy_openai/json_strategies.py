"""JSON as text in forms that clients really send: odd spacing, odd escapes, numbers in every notation."""

import json
from collections.abc import Callable
from itertools import cycle

from hypothesis import strategies as st

NUMBERS = ("0", "-0", "1", "1.0", "1.50", "1e5", "1E+2", "-3.25e-2", "12345678901234567890123", "0.1000")
SPACES = ("", " ", "\n", "\t", " \r\n ")
# Five in turn: a member of an object has four places for a space, so that each of the five comes to each place.
TURN = 5

# A strategy is made and checked once, here, and not whenever something is drawn: that took most of a test's time.
turns = st.integers(0, len(SPACES) ** TURN - 1)
numbers = st.sampled_from(NUMBERS)
# No surrogates: the door refuses half of a pair. Nothing named as a member we know, either.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text("abcxyz_é", min_size=1, max_size=6).map("x_".__add__)


@st.composite
def strings(draw: st.DrawFn, text: st.SearchStrategy[str] = words) -> str:
    """A JSON string, escaped to ASCII or not."""
    return json.dumps(draw(text), ensure_ascii=draw(st.booleans()))


def objects(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    """An object of *members* (name, JSON text) with spaces where the grammar allows them."""
    space = _spaces(draw)
    texts = [f"{space()}{json.dumps(name)}{space()}:{space()}{text}{space()}" for name, text in members]
    return "{" + (",".join(texts) or space()) + "}"


def arrays(draw: st.DrawFn, texts: list[str]) -> str:
    """An array of *texts* with spaces where the grammar allows them."""
    space = _spaces(draw)
    return "[" + (",".join(f"{space()}{text}{space()}" for text in texts) or space()) + "]"


def _spaces(draw: st.DrawFn) -> Callable[[], str]:
    """One draw for all spaces of an object or an array: one for each was most of what was drawn."""
    number = draw(turns)
    return cycle([SPACES[number // len(SPACES) ** place % len(SPACES)] for place in range(TURN)]).__next__


any_string = strings()
scalars = st.one_of(numbers, any_string, st.sampled_from(("true", "false")))


@st.composite
def _array(draw: st.DrawFn, texts: st.SearchStrategy[list[str]]) -> str:
    return arrays(draw, draw(texts))


@st.composite
def _object(draw: st.DrawFn, members: st.SearchStrategy[dict[str, str]]) -> str:
    return objects(draw, list(draw(members).items()))


def values(depth: int = 2) -> st.SearchStrategy[str]:
    """Any JSON text but null, which counts as absent."""
    if depth == 0:
        return scalars
    inner = values(depth - 1)
    array, found = st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)
    return st.one_of(scalars, _array(array), _object(found))


some_members = st.dictionaries(names, values(), max_size=2).map(lambda found: list(found.items()))


def unknown() -> st.SearchStrategy[list[tuple[str, str]]]:
    """Some members that no dialect knows."""
    return some_members
