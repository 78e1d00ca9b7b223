"""
The blocks of an event stream, read anew and plainly: what a client's reader makes of the bytes.

Shares nothing with `llmproxy_core.sse`, which is among what it is to find fault with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


@attrs.frozen
class Block:
    """The lines up to a blank line."""

    fields: tuple[tuple[str, str], ...]
    """Names and values in order; a comment has the name ""."""
    ends: frozenset[bytes]
    """The line ends used."""
    complete: bool
    """Whether a blank line ends it; False only for the last one."""

    @property
    def data(self) -> str | None:
        """Its data lines joined by LF; None when it has none."""
        lines = self.values("data")
        return "\n".join(lines) if lines else None

    @property
    def name(self) -> str | None:
        """What its last `event` line says; None without one."""
        names = self.values("event")
        return names[-1] if names else None

    @property
    def is_comment(self) -> bool:
        """Whether it has comments and nothing else."""
        return all(not name for name, _ in self.fields)

    def values(self, name: str) -> list[str]:
        """The values of every line of that *name*."""
        return [value for each, value in self.fields if each == name]


def read_blocks(stream: bytes) -> Iterator[Block]:
    """The blocks of *stream*, which may begin with a BOM. Bytes that are not UTF-8 become U+FFFD."""
    fields: list[tuple[str, str]] = []
    ends: set[bytes] = set()
    for line, end in _lines(stream.removeprefix(BOM)):
        ends.add(end)
        if line:
            fields.append(_field(line.decode(errors="replace")))
            continue
        if fields:
            yield Block(tuple(fields), frozenset(ends), complete=True)
        fields, ends = [], set()
    if fields:
        yield Block(tuple(fields), frozenset(ends - {b""}), complete=False)


def _lines(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    for match in _LINE.finditer(stream):
        if match.end() > match.start():
            yield match[1], match[2]


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")
