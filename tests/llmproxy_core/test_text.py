"""Filters and watchers of text: no split of it may make a difference."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy_core.errors import GuardrailBlocked
from llmproxy_core.text import Channel, Replace, TextFilter, Watcher, WordWatcher

# Few letters, so that words begin, overlap and contain each other all the time.
texts = st.text(alphabet="abc", max_size=40)
words = st.text(alphabet="abc", min_size=1, max_size=5)
replacements = st.dictionaries(words, st.text(alphabet="abcX", max_size=3), max_size=5)
places = st.lists(st.integers(0, 50), max_size=10)


def cut(text: str, at: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in at), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def run(text_filter: TextFilter, pieces: list[str]) -> str:
    return "".join([*map(text_filter.feed, pieces), text_filter.flush()])


def test_a_channel_is_a_key() -> None:
    seen = {Channel(0, "text"): 1, Channel(0, "arguments", 1): 2}

    assert seen[Channel(0, "text", 0)] == 1
    assert Channel() == Channel(0, "text", 0)
    assert Channel(1) not in seen


# -- Replace -------------------------------------------------------------------------------------------------


def replaced(text: str, by: dict[str, str]) -> str:
    """What Replace promises, on a whole text."""
    longest_first = "|".join(re.escape(word) for word in sorted(by, key=len, reverse=True))
    return re.sub(longest_first, lambda found: by[found[0]], text) if by else text


@given(texts, replacements, places)
@example("abx", {"abc": "1", "b": "2"}, [2])  # the longer word does not come, the shorter within it counts
@example("abc", {"ab": "1", "bc": "2"}, [2])  # the beginning of a word inside a word that counts
@example("ababab", {"abababx": "1", "ab": "2"}, [1, 2, 3, 4, 5])
def test_any_split_is_replaced_as_the_whole_is(text: str, by: dict[str, str], at: list[int]) -> None:
    assert run(Replace(by), cut(text, at)) == replaced(text, by)


@given(texts, replacements)
def test_a_text_that_comes_in_single_characters_is_replaced_as_the_whole_is(text: str, by: dict[str, str]) -> None:
    assert run(Replace(by), list(text)) == replaced(text, by)


@pytest.mark.parametrize(
    ("by", "pieces", "passed"),
    [
        ({"secret": "***"}, ["a sec", "ret b"], ["a ", "*** b"]),
        ({"secret": "***"}, ["a sec", "ond"], ["a ", "second"]),
        ({"secret": "***"}, ["no"], ["no"]),
        ({"ab": "1", "abc": "2"}, ["ab", "c"], ["", "2"]),
        ({"ab": "1", "abc": "2"}, ["ab", "d"], ["", "1d"]),
        ({"aab": "1"}, ["aaa", "b"], ["a", "1"]),
        ({"a.c": "1"}, ["abc", "a.c"], ["abc", "1"]),
        ({"🦊": "fox"}, ["a 🦊"], ["a fox"]),
        ({"a": "aa"}, ["a", "a"], ["aa", "aa"]),  # a replacement is not searched
        ({}, ["abc"], ["abc"]),
    ],
)
def test_only_what_may_still_become_a_word_is_held(by: dict[str, str], pieces: list[str], passed: list[str]) -> None:
    text_filter = Replace(by)

    assert [text_filter.feed(piece) for piece in pieces] == passed
    assert text_filter.flush() == ""


def test_a_held_beginning_goes_out_at_the_end() -> None:
    text_filter = Replace({"secret": "***", "cr": "!"})

    assert text_filter.feed("sec") == ""
    assert text_filter.feed("r") == ""
    assert text_filter.flush() == "se!"


@given(texts, replacements, places)
def test_nothing_is_held_where_no_word_begins(text: str, by: dict[str, str], at: list[int]) -> None:
    text_filter = Replace(by)
    for piece in cut(text, at):
        text_filter.feed(piece)

    held = text_filter.flush()

    beginnings = {word[:length] for word in by for length in range(1, len(word))}
    assert not held or text.endswith(tuple(beginnings))


def test_an_empty_word_is_refused() -> None:
    with pytest.raises(ValueError, match="empty word"):
        Replace({"": "x"})
    with pytest.raises(ValueError, match="empty word"):
        WordWatcher([""], print)


# -- WordWatcher ---------------------------------------------------------------------------------------------


def watch(looked_for: set[str], pieces: list[str]) -> list[str]:
    found: list[str] = []
    watcher: Watcher = WordWatcher(looked_for, found.append)
    for piece in pieces:
        watcher.feed(piece)
    watcher.end()
    return found


@given(texts, st.sets(words, max_size=5), places)
def test_each_word_is_found_once_in_the_order_they_end_in_any_split(
    text: str, looked_for: set[str], at: list[int]
) -> None:
    ends = sorted((text.index(word) + len(word), -len(word), word) for word in looked_for if word in text)

    assert watch(looked_for, cut(text, at)) == [word for _, _, word in ends]
    assert watch(looked_for, list(text)) == [word for _, _, word in ends]


def test_a_word_is_found_as_soon_as_its_last_character_has_come() -> None:
    found: list[str] = []
    watcher = WordWatcher({"bomb", "bombast"}, found.append)

    watcher.feed("a bo")
    assert found == []
    watcher.feed("mb")
    assert found == ["bomb"]


def test_what_a_watcher_raises_stops_the_feeding() -> None:
    def refuse(word: str) -> None:
        raise GuardrailBlocked(f"{word!r} is not allowed here")

    watcher = WordWatcher({"bomb"}, refuse)
    watcher.feed("a bo")

    with pytest.raises(GuardrailBlocked, match="bomb"):
        watcher.feed("mb")
