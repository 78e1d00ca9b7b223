"""The JSON of a stream, asked member by member: what has the wrong type is a violation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

Report = Callable[[str], None]


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()


class NotJSON(ValueError):
    """A text is no JSON that every client reads alike; the message says why."""


class Node:
    """
    An object at the place *where* of a stream; *report* is told what is wrong with its members.

    Every question has the answer None for a member that is wrong, and for one that is absent or null; whether the
    latter is a violation too, *must* says.
    """

    __slots__ = ("_report", "members", "where")

    def __init__(self, members: dict[str, object], where: str, report: Report) -> None:
        self.members = members
        self.where = where
        self._report = report

    def has(self, name: str) -> bool:
        """Whether the member is there, null or not."""
        return name in self.members

    def value(self, name: str) -> object:
        """The member as it is; `ABSENT` when it is not there."""
        return self.members.get(name, ABSENT)

    def wrong(self, what: str) -> None:
        """Report *what* about this object."""
        self._report(f"{self.where}: {what}" if self.where else what)

    def text(self, name: str, *, must: bool = True, empty: bool = True) -> str | None:
        """A string; not *empty*: "" is wrong too."""
        found = self._typed(name, str, "a string", must=must)
        if found == "" and not empty:
            self.wrong(f"{name} is empty")
        return found

    def number(self, name: str, *, must: bool = True) -> int | None:
        """An integer that is not negative."""
        found = self._typed(name, int, "an integer", must=must)
        if found is not None and found < 0:
            self.wrong(f"{name} is {found}")
            return None
        return found

    def node(self, name: str, *, must: bool = True) -> Node | None:
        """An object."""
        found = self._typed(name, dict, "an object", must=must)
        return None if found is None else Node(found, self._place(name), self._report)

    def nodes(self, name: str, *, must: bool = True) -> list[Node] | None:
        """A list of objects; what is none is left out."""
        found = self._typed(name, list, "a list", must=must)
        if found is None:
            return None
        nodes = []
        for index, each in enumerate(found):
            if isinstance(each, dict):
                nodes.append(Node(each, f"{self._place(name)}[{index}]", self._report))
            else:
                self.wrong(f"{name}[{index}] is not an object")
        return nodes

    def equal(self, name: str, wanted: object, why: str = "") -> None:
        """The member is *wanted*."""
        found = self.value(name)
        if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
            self.wrong(f"{name} is {brief(found)}, not {brief(wanted)}{why and f' {why}'}")

    def null(self, name: str, *, may_be_absent: bool = True) -> None:
        """The member is null."""
        found = self.value(name)
        if found is not None and not (found is ABSENT and may_be_absent):
            self.wrong(f"{name} is {brief(found)}, not null")

    def one_of(self, name: str, words: frozenset[str], *, must: bool = True) -> str | None:
        """One of *words*."""
        found = self.text(name, must=must)
        if found is not None and found not in words:
            self.wrong(f"{name} is {brief(found)}")
        return found

    def json_object(self, text: str, what: str) -> None:
        """*text*, which is *what*, is the JSON of an object."""
        try:
            value = read_json(text)
        except NotJSON as error:
            self.wrong(f"{what}, {brief(text)}: {error}")
            return
        if not isinstance(value, dict):
            self.wrong(f"{what}: {brief(value)} is not an object")

    def _typed(self, name: str, kind: type[T], called: str, *, must: bool) -> T | None:
        found = self.value(name)
        if found is None or found is ABSENT:
            if must:
                self.wrong(f"{name} is {'null' if found is None else 'absent'}, not {called}")
            return None
        if not isinstance(found, kind) or isinstance(found, bool):
            self.wrong(f"{name} is {brief(found)}, not {called}")
            return None
        return found

    def _place(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name


def brief(value: object) -> str:
    """*value* for a message: not longer than a line."""
    said = repr(value) if value is ABSENT else json.dumps(value, default=repr)
    return said if len(said) <= 60 else f"{said[:57]}..."


def read_json(text: str) -> object:
    """
    The value of a JSON *text*; NotJSON unless every client reads it, and all alike.

    Refused besides broken JSON: NaN and Infinity, a name twice in one object, half of a surrogate pair.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise NotJSON("a string has half of a surrogate pair") from None
    except (json.JSONDecodeError, RecursionError):
        raise NotJSON("not JSON") from None
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotJSON("a name comes twice in one object")
    return members


def _no_number(word: str) -> object:
    raise NotJSON(f"{word} is no JSON number")
