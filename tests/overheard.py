"""All that a client could make of an answer's bytes, whatever its protocol and however it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_decode = json.JSONDecoder().raw_decode


def overheard(body: bytes) -> list[str]:
    """
    The texts in *body*: of each member's name all its values joined, and the bytes themselves.

    Knows of no protocol, so that it finds what no reader of one looks for.
    """
    texts: dict[str, list[str]] = {}
    for value in _values(body.decode(errors="replace")):
        for name, text in _leaves("", value):
            texts.setdefault(name, []).append(text)
    return [body.decode(errors="replace"), *map("".join, texts.values())]


def _values(text: str) -> Iterator[Any]:
    """The JSON values of a document, an event stream or an array that may have been cut."""
    if not text.startswith(("{", "[")):
        lines = (line.partition(":") for line in text.splitlines())
        for name, _, data in lines:
            if name == "data":
                yield from _values(data.strip())
        return
    place = 0
    while (place := text.find("{", place)) >= 0:
        try:
            value, place = _decode(text, place)
        except json.JSONDecodeError:  # cut off
            return
        yield value


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield name, value
            if value.startswith(("{", "[")):  # JSON within JSON
                yield from (leaf for inner in _values(value) for leaf in _leaves(f"{name}.", inner))
        case dict():
            for key, inner in value.items():
                yield from _leaves(key, inner)
        case list():
            for inner in value:
                yield from _leaves(name, inner)
        case _:
            pass
