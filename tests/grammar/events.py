"""Streams as lists of events, and the edits that make a right one wrong."""

import copy
import json
from collections.abc import Callable
from typing import Any

import attrs

from llmproxy_core.testing.grammar.blocks import read_blocks


@attrs.define
class Event:
    """One event; *value* is its JSON, or its data as it is when that is none."""

    value: Any
    name: str | None = None

    def bytes(self) -> bytes:
        """The event on the wire."""
        data = self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)
        head = "" if self.name is None else f"event: {self.name}\n"
        return f"{head}data: {data}\n\n".encode("utf-8", "surrogatepass")


Events = list[Event]
Edit = Callable[[Events], None]


def plain(*values: Any) -> Events:
    """Events without names."""
    return [Event(value) for value in values]


def named(*values: dict[str, Any]) -> Events:
    """Events whose names are their types."""
    return [Event(value, value["type"]) for value in values]


def numbered(*values: dict[str, Any]) -> Events:
    """Events whose names are their types, with sequence numbers."""
    return named(*({**value, "sequence_number": number} for number, value in enumerate(values)))


def written(events: Events, *edits: Edit) -> bytes:
    """The bytes of *events* after *edits*, in order."""
    return b"".join(event.bytes() for event in edited(events, *edits))


def as_array(events: Events, *edits: Edit) -> bytes:
    """The values of *events* after *edits*, as one JSON array."""
    return json.dumps([event.value for event in edited(events, *edits)]).encode()


def edited(events: Events, *edits: Edit) -> Events:
    """A copy of *events* after *edits*; no two events of it share a value."""
    copies = [Event(copy.deepcopy(event.value), event.name) for event in events]
    for edit in edits:
        edit(copies)
    return copies


def read(stream: bytes) -> Events:
    """The events of *stream*."""
    return [_event(block.data, block.name) for block in read_blocks(stream) if block.data is not None]


def _event(data: str, name: str | None) -> Event:
    try:
        return Event(json.loads(data), name)
    except ValueError:
        return Event(data, name)


# -- edits -----------------------------------------------------------------------------------------------------


def drop(at: int) -> Edit:
    """Leave the event out."""
    return lambda events: events.__delitem__(at)


def twice(at: int) -> Edit:
    """Send the event twice."""
    return lambda events: events.insert(at, copy.deepcopy(events[at]))


def swap(one: int, other: int) -> Edit:
    """Send the two in each other's place."""

    def edit(events: Events) -> None:
        events[one], events[other] = events[other], events[one]

    return edit


def drop_all(start: int, end: int) -> Edit:
    """Leave the events from *start* to *end* out."""
    return lambda events: events.__delitem__(slice(start, end + 1))


def add(at: int, value: Any, name: str | None = None) -> Edit:
    """Send another event before the one *at*; -1: at the end."""
    return lambda events: events.insert(at if at >= 0 else len(events), Event(copy.deepcopy(value), name))


def insert(at: int, *values: dict[str, Any]) -> Edit:
    """Send other events, whose names are their types, before the one *at*."""

    def edit(events: Events) -> None:
        events[at:at] = [Event(copy.deepcopy(value), value["type"]) for value in values]

    return edit


def cut(at: int) -> Edit:
    """Send nothing from the event *at* on."""
    return lambda events: events.__delitem__(slice(at, None))


def name(at: int, as_what: str | None) -> Edit:
    """Name the event."""
    return lambda events: setattr(events[at], "name", as_what)


def put(at: int, path: str, value: Any) -> Edit:
    """Give the member at *path*, names and positions between dots, another value."""

    def edit(events: Events) -> None:
        holder, last = _holder(events[at], path)
        holder[last] = value

    return edit


def lose(at: int, path: str) -> Edit:
    """Leave the member at *path* out."""

    def edit(events: Events) -> None:
        holder, last = _holder(events[at], path)
        del holder[last]

    return edit


def renumber(events: Events) -> None:
    """Number the events anew, so that only what they say is wrong."""
    for number, event in enumerate(events):
        event.value["sequence_number"] = number


def _holder(event: Event, path: str) -> tuple[Any, Any]:
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    holder = event.value
    for step in steps:
        holder = holder[step]
    return holder, last
