"""Whether bytes that are not ours may be shown: an LLM's secrets can stand in them in other letters."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import msgspec

Redact = Callable[[bytes], bytes]

_READABLE = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252"})
"""Character sets in which a secret has the bytes that it has here."""


def shows_nothing(body: bytes, content_type: str, redact: Redact) -> bool:
    """
    Whether *body*, of *content_type*, shows no secret that *redact* cuts out: not escaped in JSON, HTML or as in URLs.

    In a character set in which nothing can be found the answer is no.
    """
    if _charset(content_type) not in _READABLE or b"\0" in body:
        return False
    return all(redact(text) == text for text in _readings(body))


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'").lower()
    return ""


def _readings(body: bytes) -> Iterator[bytes]:
    text = body.decode(errors="replace")
    yield html.unescape(text).encode()
    yield unquote(text).encode()
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        yield from _strings(msgspec.json.decode(body))


def _strings(value: object) -> Iterator[bytes]:
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text:
                yield text.encode()
            case dict() as members:
                pending += [*members.keys(), *members.values()]
            case list() as items:
                pending += items
            case _:
                pass
