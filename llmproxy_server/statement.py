"""Finds the line of a value in a TOML file: the parser gives places for syntax errors only."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import attrs
import tomli

from llmproxy_core.config_path import Place, value_at


class Statements:
    """
    The statements of a file that parses, and which of them defines what.

    The first prefix of the file that holds a place ends with the line that defines it; prefixes are tried by halving,
    first where statements end, then in the one that was found, with its open brackets closed. Made when there is
    something to report.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._spans = _spans(self._lines)
        self._prefixes: dict[tuple[int, str], Mapping[str, object]] = {}

    def line(self, place: Place) -> int | None:
        """The line, counted from 1, of *place*, or of the nearest table around it; None when there is none."""
        while place:
            found = bisect_left(self._spans, True, key=lambda span: self._holds(span.end, "", place))
            if found < len(self._spans):
                return self._within(self._spans[found], place) + 1
            place = place[:-1]
        return None

    def _within(self, span: _Span, place: Place) -> int:
        """The line of *span* that defines *place*."""
        last = bisect_left(range(len(span.closing)), True, key=lambda index: self._holds_up_to(span, index, place))
        while last and span.closing[last - 1] is None:  # the value is a string, which ends here
            last -= 1
        return span.start + last

    def _holds_up_to(self, span: _Span, index: int, place: Place) -> bool:
        """Whether the lines of *span* up to that one, with what they leave open closed, hold *place*."""
        while index and span.closing[index] is None:
            index -= 1
        closing = span.closing[index]
        return closing is not None and self._holds(span.start + index + 1, closing, place)

    def _holds(self, end: int, closing: str, place: Place) -> bool:
        if (end, closing) not in self._prefixes:
            self._prefixes[end, closing] = tomli.loads("\n".join([*self._lines[:end], closing]))
        try:
            value_at(self._prefixes[end, closing], place)
        except LookupError:
            return False
        return True


@attrs.frozen
class _Span:
    """A statement: its first line, the line after its last, and what closes the brackets that each line leaves open."""

    start: int
    end: int
    closing: Sequence[str | None]
    """None: the line ends in a string."""


def _spans(lines: list[str]) -> list[_Span]:
    """The statements of a valid file."""
    spans: list[_Span] = []
    start: int | None = None
    inside, closing = _Inside(), list[str | None]()
    for number, line in enumerate(lines):
        if start is None:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            start, closing = number, []
        inside.read(line)
        closing.append(inside.closing)
        if inside.closing == "":
            spans.append(_Span(start, number + 1, closing))
            start = None
    return spans


# What a statement is made of, as far as it matters for where it ends: strings of many lines begin or are closed,
# strings of one line and comments are passed over, brackets open and close. A string of many lines may end in quotes
# of its own (TOML 1.0, "String").
_PIECE = re.compile(r"""(?P<begins>"{3}|'{3})|"(?:[^"\\]|\\.)*"|'[^']*'|#.*|(?P<opens>[\[{])|(?P<closes>[\]}])""")
_END = {'"""': re.compile(r'(?:[^"\\]|\\(?:.|$)|"{1,2}(?!"))*?"{3,5}'), "'''": re.compile(r".*?'{3,5}")}


_CLOSES = {"[": "]", "{": "}"}


class _Inside:
    """In which brackets, and in which string of many lines, the end of the lines read is."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._quote: str | None = None

    @property
    def closing(self) -> str | None:
        """What closes all that is open; None inside a string."""
        return None if self._quote is not None else "".join(_CLOSES[it] for it in reversed(self._open))

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
            if piece["opens"]:
                self._open.append(piece["opens"])
            elif piece["closes"]:
                self._open.pop()
