"""JSON as text in forms that clients really send: odd spacing, odd escapes, numbers in every notation."""

import json
from collections.abc import Callable

from hypothesis import strategies as st

NUMBERS = ("0", "-0", "1", "1.0", "1.50", "1e5", "1E+2", "-3.25e-2", "12345678901234567890123", "0.1000")
SPACES = ("", " ", "\n", "\t", " \r\n ")

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
    picks = st.sampled_from(SPACES)
    return lambda: draw(picks)


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    """Any JSON text but null, which counts as absent."""
    kind = draw(st.integers(0, 5 if depth else 3))
    if kind <= 1:
        return draw(numbers)
    if kind == 2:
        return draw(strings())
    if kind == 3:
        return draw(st.sampled_from(("true", "false")))
    if kind == 4:
        return arrays(draw, draw(st.lists(values(depth=depth - 1), max_size=3)))
    found = draw(st.dictionaries(names, values(depth=depth - 1), max_size=3))
    return objects(draw, list(found.items()))


@st.composite
def unknown(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Some members that no dialect knows."""
    return list(draw(st.dictionaries(names, values(), max_size=2)).items())
