"""What differs between two JSON texts, and a JSON text with members that nobody knows in every object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import attrs
import msgspec

UNKNOWN = "x_nobody_knows"
_MEMBER = f'"{UNKNOWN}":{{"deep":[1,1.0,null,"東"],"{UNKNOWN}":true}}'.encode()
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}]', re.DOTALL)
_SPACE = b" \t\r\n"


@attrs.frozen
class JSONChange:
    """One place where two JSON values differ; `...` stands for a member that is not there."""

    place: str
    before: object
    after: object

    def __str__(self) -> str:
        return f"{self.place or 'the body'}: {self.before!r:.200} became {self.after!r:.200}"


def changes(before: bytes, after: bytes) -> list[JSONChange]:
    """Where *after* says otherwise than *before*. A member that was null counts as absent."""
    return list(_changes("", msgspec.json.decode(before), msgspec.json.decode(after)))


def _changes(place: str, before: object, after: object) -> Iterator[JSONChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            old, new = before.get(name, ...), after.get(name, ...)
            if {id(old), id(new)} != {id(None), id(...)}:
                yield from _changes(f"{place}.{name}" if place else str(name), old, new)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _changes(f"{place}[{index}]", old, new)
    elif type(before) is not type(after) or before != after:
        yield JSONChange(place, before, after)


def text_changes_only(before: bytes, after: bytes, is_that_text: Callable[[str], bool]) -> list[JSONChange]:
    """The changes from *before* to *after*, but for those of strings that *is_that_text* knows."""
    return [it for it in changes(before, after) if not (isinstance(it.before, str) and is_that_text(it.before))]


def with_unknown(text: bytes) -> bytes:
    """The JSON *text* with one more member at the end of every object; every other byte stays."""
    pieces: list[bytes] = []
    done = 0
    for token in _TOKENS.finditer(text):
        if token[0] != b"}":
            continue
        head = text[done : token.start()].rstrip(_SPACE)
        is_first = not head.endswith(b"{") if head else bool(pieces)
        pieces += [head, b"," if is_first else b"", _MEMBER, text[done + len(head) : token.end()]]
        done = token.end()
    return b"".join([*pieces, text[done:]])


def event_with_unknown(raw: bytes) -> bytes:
    """The event *raw* of a stream with one more member in every object of its data; itself where it has no JSON."""
    data = data_of(raw)
    return raw.replace(data, with_unknown(data), 1) if data else raw


def data_of(raw: bytes) -> bytes:
    """The JSON object in the bytes of an event; b"" where there is none."""
    data = raw[raw.find(b"{") : raw.rfind(b"}") + 1]
    try:
        msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return b""
    return data


def spaced(text: bytes) -> bytes:
    """The same JSON, indented: other bytes, the same meaning."""
    return msgspec.json.format(text, indent=3)


def strings(text: bytes) -> Iterator[str]:
    """Every string value in the JSON *text*."""
    yield from _strings(msgspec.json.decode(text))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
