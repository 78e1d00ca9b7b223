"""Finds the line of a value in a TOML file: the parser gives places for syntax errors only."""

from __future__ import annotations

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
    """
    First line, and line after the last, of each statement.

    Every statement of a valid file parses by itself, and none does before its last line.
    """
    spans: list[tuple[int, int]] = []
    start: int | None = None
    for number, line in enumerate(lines):
        if start is None:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            start = number
        if _is_whole("\n".join(lines[start : number + 1])):
            spans.append((start, number + 1))
            start = None
    return spans


def _is_whole(statement: str) -> bool:
    try:
        tomli.loads(statement)
    except ValueError:
        return False
    return True
