"""Arguments of a call that come piece by piece, each with the path of the value it belongs to."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import msgspec

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
_ESCAPED = re.compile(r"\\(.)")
_LONGEST_LIST = 10_000

Step = str | int


class PartialArgs:
    """The arguments in the making. A path that leads nowhere is passed over: what else came is still the call's."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}

    def add(self, piece: dict[str, Any]) -> None:
        """Take one of `partialArgs`: text goes on where it stopped, any other value is whole."""
        path = parse_path(str(piece.get("jsonPath", "")))
        if path and isinstance(path[0], str):
            _put(self._root, path, piece)

    def merge(self, arguments: dict[str, Any]) -> None:
        """Take arguments that came whole."""
        self._root |= arguments

    def text(self) -> str:
        """The arguments so far, as JSON."""
        return msgspec.json.encode(self._root).decode()


def parse_path(text: str) -> list[Step]:
    """The steps of a JSONPath without wildcards; none for what is no such path."""
    place = 1 if text.startswith("$") else 0
    steps: list[Step] = []
    while place < len(text):
        found = _STEP.match(text, place)
        if found is None:
            return []
        name, index, single, double = found.groups()
        if index is not None:
            steps.append(int(index))
        elif name is not None:
            steps.append(name)
        else:
            steps.append(_ESCAPED.sub(r"\1", single if single is not None else double))
        place = found.end()
    return steps


def _put(root: dict[str, Any], path: list[Step], piece: dict[str, Any]) -> None:
    """Set the value at *path*, making the objects and lists on the way to it."""
    node: Any = root
    for step, following in pairwise(path):
        child = _get(node, step)
        if not isinstance(child, dict if isinstance(following, str) else list):
            child = {} if isinstance(following, str) else []
            if not _set(node, step, child):
                return
        node = child
    last = path[-1]
    if "stringValue" in piece:
        before = _get(node, last)
        _set(node, last, (before if isinstance(before, str) else "") + str(piece["stringValue"]))
        return
    value = next((piece[name] for name in ("numberValue", "boolValue") if name in piece), None)
    if value is not None or "nullValue" in piece:
        _set(node, last, value)


def _get(node: Any, step: Step) -> Any:
    if isinstance(node, dict):
        return node.get(step)
    return node[step] if isinstance(step, int) and step < len(node) else None


def _set(node: Any, step: Step, value: Any) -> bool:
    if isinstance(node, dict):
        node[str(step)] = value
        return True
    if not isinstance(step, int) or step >= _LONGEST_LIST:
        return False
    node.extend([None] * (step + 1 - len(node)))
    node[step] = value
    return True
