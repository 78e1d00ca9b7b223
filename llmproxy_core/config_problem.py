"""Problems of a configuration in words: what was found, what was expected, the nearest right name. Never a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import attrs

from llmproxy_core.config_path import Place, escaped, masked, written
from llmproxy_core.errors import Problem

_LONGEST = 60
_MOST_NAMES = 30
# What stands before the host in a URL, and behind its path, is not shown, wherever and however it was written.
_USERINFO = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:/{1,2}|//)?).*@", re.DOTALL)
_BEHIND = re.compile(r"([?#])(?=\S).*", re.DOTALL)


@attrs.define
class Problems:
    """Collects what is wrong (*errors*) and what is only doubtful (*warnings*)."""

    errors: list[Problem] = attrs.field(factory=list)
    warnings: list[Problem] = attrs.field(factory=list)

    def add(self, place: Place, message: str) -> None:
        problem = Problem(written(place), message)
        if problem not in self.errors:
            self.errors.append(problem)

    def warn(self, place: Place, message: str) -> None:
        self.warnings.append(Problem(written(place), message))


def safe(text: str) -> str:
    """*text* on one line, shortened, and without what looks like a credential."""
    text = masked(text)
    text = _USERINFO.sub(r"\1***@", text)
    text = _BEHIND.sub(r"\1…", text)
    return escaped(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def shown(value: object) -> str:
    """A value of TOML for a message: short, on one line, containers by their kind only."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{safe(value)}"' if value else "an empty string"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a huge number"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "a table" if value else "an empty table"
    if isinstance(value, list | tuple):
        return "an array" if value else "an empty array"
    return f"a {type(value).__name__}"


def nearest(name: str, known: Iterable[str], what: str = "defined") -> str:
    """
    How a message about the unknown *name* goes on: the nearest right name, and all of them.

    >>> nearest("opnai", ["local", "openai"])
    'did you mean "openai"? (defined: local, openai)'
    >>> nearest("x", [])
    'none is defined'
    """
    names = sorted(known)
    if not names:
        return f"none is {what}"
    close = difflib.get_close_matches(name[:_LONGEST].lower(), names, n=1)
    listed = ", ".join(safe(it) for it in names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    return f'did you mean "{safe(close[0])}"? ({what}: {listed})' if close else f"{what}: {listed}"
