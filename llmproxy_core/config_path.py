"""Places in a TOML document, as people write them: `llm.local.base_url`, `route[1].processors[2]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

Place = tuple[str | int, ...]
"""Keys, and indexes counted from 0."""

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PART = re.compile(r"""\.?([A-Za-z0-9_-]+)|\.?"((?:[^"\\]|\\.)*)"|\[([0-9]+)\]""", re.ASCII)
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
_LONGEST_KEY = 100
# What the keys of well-known vendors look like: people paste them anywhere, also as names.
_CREDENTIAL = re.compile(
    r"(?i)\b(sk|pk|rk|gsk|xai|xox[a-z]|ghp|gho|glpat|hf|AIza)(?=[-_a-z]*[0-9])[-_a-z0-9]{12,}|\b(bearer|basic)\s+\S+"
)


def masked(text: str) -> str:
    """*text* without what looks like a credential, wherever it was written."""
    return _CREDENTIAL.sub("***", text)


def escaped(text: str) -> str:
    """*text* with unprintable characters, quotes and backslashes escaped: safe inside quotes, on a terminal."""
    return "".join(_escape(char) for char in text)


def _escape(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def written(place: Iterable[str | int]) -> str:
    """
    *place* as TOML writes it, elements of arrays counted from 1, very long keys cut short, credentials masked.

    >>> written(("route", 0, "processors", 1)), written(("llm", "a.b", "model"))
    ('route[1].processors[2]', 'llm."a.b".model')
    """
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part + 1}]"
            continue
        part = masked(part)
        part = part if len(part) <= _LONGEST_KEY else part[:_LONGEST_KEY] + "…"
        key = part if _BARE.fullmatch(part) else f'"{escaped(part)}"'
        text += f".{key}" if text else key
    return text


def read_place(text: str) -> Place:
    """
    What `written` made *text* of; a key that was cut short comes back cut.

    >>> read_place('llm."a.b".models[2]')
    ('llm', 'a.b', 'models', 1)
    """
    place: list[str | int] = []
    for bare, quoted, index in _PART.findall(text):
        place.append(int(index) - 1 if index else bare or _ESCAPE.sub(_unescape, quoted))
    return tuple(place)


def _unescape(match: re.Match[str]) -> str:
    short, long, char = match.groups()
    return str(char) if char else chr(int(short or long, 16))


def value_at(document: object, place: Sequence[str | int]) -> object:
    """The value at *place*; LookupError when there is none."""
    for part in place:
        match part, document:
            case int(), list() | tuple():
                document = document[part]
            case str(), Mapping():
                document = document[part]
            case _:
                raise LookupError(part)
    return document
