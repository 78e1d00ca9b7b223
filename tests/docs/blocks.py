"""The code blocks of the documentation, as the tests that run them see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
TUTORIALS = (ROOT / "docs" / "WRITING_PROCESSORS.md", ROOT / "docs" / "IMPLEMENTING_PROVIDERS.md")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


@attrs.frozen
class Block:
    """A fenced block: *language* is the word behind the fence, *line* where its text begins."""

    document: str
    line: int
    language: str
    text: str
    file: str | None = None
    """The file that the paragraph before it names."""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """Everything a reader may copy from."""
    found = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").glob("*/README.md")]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def blocks(*languages: str) -> list[Block]:
    """All blocks, or those of *languages*, but not those of tutorials: each of these goes on from the one before."""
    found = [block for path in documents() if path not in TUTORIALS for block in blocks_of(path)]
    return [block for block in found if not languages or block.language in languages]


def blocks_of(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        paragraph = text[: match.start()].rstrip().rpartition("\n\n")[2]
        files = re.findall(r"`([\w./-]+\.(?:py|toml))`", paragraph)
        yield Block(
            str(path.relative_to(ROOT)), line, match["language"].strip(), match["text"], files[-1] if files else None
        )


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
