"""Finds the line of a value in a TOML file: the parser gives places for syntax errors only."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping

import tomli

from llmproxy_core.config_path import Place, value_at


class Statements:
    """
    The statements of a file that parses, and which of them defines what.

    The first prefix of the file that holds a place ends with the statement that defines it; prefixes are tried by
    halving, and only where a statement ends. Made when there is something to report.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._spans = _spans(self._lines)
        self._prefixes: dict[int, Mapping[str, object]] = {}

    def line(self, place: Place) -> int | None:
        """The line, counted from 1, of *place*, or of the nearest table around it; None when there is none."""
        while place:
            found = bisect_left(range(len(self._spans)), True, key=lambda index: self._holds(index, place))
            if found < len(self._spans):
                return self._spans[found][0] + 1
            place = place[:-1]
        return None

    def _holds(self, index: int, place: Place) -> bool:
        if index not in self._prefixes:
            self._prefixes[index] = tomli.loads("\n".join(self._lines[: self._spans[index][1]]))
        try:
            value_at(self._prefixes[index], place)
        except LookupError:
            return False
        return True


def _spans(lines: list[str]) -> list[tuple[int, int]]:
    """First line, and line after the last, of each statement of a valid file."""
    spans: list[tuple[int, int]] = []
    start: int | None = None
    inside = _Inside()
    for number, line in enumerate(lines):
        if start is None:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            start = number
        inside.read(line)
        if inside.is_over:
            spans.append((start, number + 1))
            start = None
    return spans


# What a statement is made of, as far as it matters for where it ends: strings of many lines begin or are closed,
# strings of one line and comments are passed over, brackets open and close. A string of many lines may end in quotes
# of its own (TOML 1.0, "String").
_PIECE = re.compile(r"""(?P<begins>"{3}|'{3})|"(?:[^"\\]|\\.)*"|'[^']*'|#.*|(?P<opens>[\[{])|(?P<closes>[\]}])""")
_END = {'"""': re.compile(r'(?:[^"\\]|\\(?:.|$)|"{1,2}(?!"))*?"{3,5}'), "'''": re.compile(r".*?'{3,5}")}


class _Inside:
    """How deep in brackets, and in which string of many lines, the end of the lines read is."""

    def __init__(self) -> None:
        self._depth = 0
        self._quote: str | None = None

    @property
    def is_over(self) -> bool:
        return self._depth <= 0 and self._quote is None

    def read(self, line: str) -> None:
        place = 0
        while True:
            if self._quote is not None:
                end = _END[self._quote].match(line, place)
                if end is None:
                    return
                self._quote, place = None, end.end()
            piece = _PIECE.search(line, place)
            if piece is None:
                return
            place = piece.end()
            self._quote = piece["begins"]
            self._depth += bool(piece["opens"]) - bool(piece["closes"])
