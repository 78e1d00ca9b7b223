"""The code blocks of the documentation, as the tests that run them see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


@attrs.frozen
class Block:
    """A fenced block: *language* is the word behind the fence, *line* where its text begins."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """Everything a reader may copy from."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(*languages: str) -> list[Block]:
    """All blocks, or those of *languages*."""
    found = [block for path in documents() for block in _blocks(path)]
    return [block for block in found if not languages or block.language in languages]


def _blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(str(path.relative_to(ROOT)), line, match["language"].strip(), match["text"])


def commands(block: Block) -> list[str]:
    """The commands of a shell block: a line each, continued by a backslash or an open quote; comments left out."""
    found: list[str] = []
    pending = ""
    for line in block.text.splitlines():
        pending = f"{pending}\n{line}" if pending else line
        if pending.endswith("\\") or pending.count("'") % 2:
            continue
        if pending.strip() and not pending.lstrip().startswith("#"):
            found.append(pending)
        pending = ""
    assert not pending, f"{block}: a command that does not end: {pending}"
    return found
