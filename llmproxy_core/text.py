"""Text of an answer as it streams: which text it is, and filters and watchers that no split of it can fool."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol

import attrs

ChannelKind = Literal["text", "reasoning", "refusal", "arguments"]


@attrs.frozen
class Channel:
    """
    One run of text in a response. Each has a filter or watcher of its own: two channels are never joined.

    Thinking that is sealed, or followed by something else, has ended for filters; the next has a filter of its own.
    """

    choice: int = 0
    kind: ChannelKind = "text"
    index: int = 0
    """Of a tool call for "arguments", of a content part for the rest; 0 where the protocol numbers none."""


class TextFilter(Protocol):
    """
    Changes the text of one channel as it passes.

    Law: any split of a text into pieces gives the same joined output. So what cannot be decided yet is held
    back; hold as little as the decision needs, since the client waits for it.
    """

    def feed(self, text: str) -> str:
        """What may go out now; "" while all is held."""
        ...

    def flush(self) -> str:
        """What is left once the channel has ended. Called once, last."""
        ...


class Watcher(Protocol):
    """Sees the text of one channel as it passes. Both methods may raise a ProxyError to stop the response."""

    def feed(self, text: str) -> None: ...

    def end(self) -> None:
        """The channel has ended. Called once, last."""
        ...


class Replace:
    """
    Replaces words by others: the leftmost first, of several at one place the longest. Replacements are not
    searched.

    Literal and case-sensitive. Holds only the shortest suffix that may still become a word. ValueError for an
    empty word. Time is linear in the text (times the longest word, when it comes a character at a time).
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        _check_words(words)
        self._words = dict(words)
        self._found = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)")
        self._beginnings = frozenset(word[:end] for word in words for end in range(1, len(word)))
        self._longest = max(map(len, words), default=1)
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        done: list[str] = []
        start = 0
        held_from = self._first_beginning(text, start)
        for found in self._found.finditer(text):
            if found.start() >= held_from:  # a longer word, or one that begins earlier, may still come
                break
            done += (text[start : found.start()], self._words[found[0]])
            start = found.end()
            if start > held_from:  # that beginning was part of this word
                held_from = self._first_beginning(text, start)
        self._held = text[held_from:]
        done.append(text[start:held_from])
        return "".join(done)

    def flush(self) -> str:
        held, self._held = self._held, ""
        return self._found.sub(lambda found: self._words[found[0]], held)

    def _first_beginning(self, text: str, start: int) -> int:
        """Where the longest suffix of *text* from *start* on begins that is the beginning of a word, but not all."""
        for place in range(max(start, len(text) - self._longest + 1), len(text)):
            if text[place:] in self._beginnings:
                return place
        return len(text)


class WordWatcher:
    """
    Calls *on_found* with each word the first time it occurs, as soon as its last character has come.

    Literal and case-sensitive; words may overlap. In the order in which they end, the longer first; the same
    for any split. What *on_found* raises passes through. ValueError for an empty word.
    """

    def __init__(self, words: Iterable[str], on_found: Callable[[str], None]) -> None:
        self._left = set(words)
        _check_words(self._left)
        self._on_found = on_found
        self._overlap = max(map(len, self._left), default=1) - 1
        self._tail = ""

    def feed(self, text: str) -> None:
        text = self._tail + text
        ends = ((text.find(word) + len(word), -len(word), word) for word in self._left if word in text)
        for _, _, word in sorted(ends):
            self._left.discard(word)
            self._on_found(word)
        self._tail = text[max(0, len(text) - self._overlap) :]

    def end(self) -> None:
        """Nothing is left to find: a word is reported when it is complete."""


def _check_words(words: Iterable[str]) -> None:
    if not all(words):
        raise ValueError("an empty word is everywhere")
