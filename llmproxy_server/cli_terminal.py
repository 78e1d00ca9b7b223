"""Text for a terminal: colour only where a person looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import click


def say(text: str = "") -> None:
    """A line of what the command was asked for, to stdout."""
    click.echo(text, color=_colour())


def complain(text: str = "") -> None:
    """A line that is not part of the answer, to stderr."""
    click.echo(text, err=True, color=_colour())


def mention(text: str) -> None:
    """As `complain`, of what nobody needs to know: where it cannot be written (a full disk), all goes on."""
    with suppress(OSError):
        complain(text)


def strong(text: str, colour: str | None = None) -> str:
    """*text*, to be seen first. In a pipe, or with NO_COLOR, `say` and `complain` print it plain."""
    return click.style(text, fg=colour, bold=True)


def faint(text: str) -> str:
    """*text*, less than what stands beside it."""
    return click.style(text, dim=True)


def columns(rows: Iterable[tuple[str, ...]], indent: int = 2) -> list[str]:
    """
    One line a row, the cells of a column below each other; the last column is as wide as it is.

    >>> columns([("a", "1"), ("long", "2")])
    ['  a     1', '  long  2']
    """
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in table), strict=True)]
    lines = []
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append((" " * indent + "  ".join([*cells, row[-1]])).rstrip())
    return lines


def _colour() -> bool | None:
    """False where nobody wants colour (no-color.org, and terminals without it); None: wherever there is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
