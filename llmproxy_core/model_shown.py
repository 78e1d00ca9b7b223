"""The model's name as the client is to see it, where another one was sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import attrs
import msgspec

from llmproxy_core.chat import ChatEvent, Start
from llmproxy_core.errors import BadRequest
from llmproxy_core.jsontext import set_member

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def rename_reply(body: bytes, member: str, shown: str) -> bytes:
    """The JSON object *body* with its top-level *member* saying *shown*, if it has one; all else keeps its bytes."""
    try:
        if member not in _decode(body):
            return body
        return set_member(body, member, msgspec.json.encode(shown))
    except (msgspec.MsgspecError, UnicodeDecodeError, BadRequest):
        return body  # what cannot be read is the client's to see


def show_model(events: list[ChatEvent], shown: str | None, asked: str | None) -> list[ChatEvent]:
    """*events* with *shown* as the name of the model; without one, *asked* where the provider names none."""
    if not any(isinstance(event, Start) for event in events):
        return events
    return [_named(event, shown, asked) if isinstance(event, Start) else event for event in events]


def _named(start: Start, shown: str | None, asked: str | None) -> Start:
    name = shown or start.model or asked
    return attrs.evolve(start, model=name) if name and name != start.model else start


def renamer(member: str, shown: str) -> Callable[[bytes, str | None], bytes]:
    """
    What renames the model in blocks of whole events, given what the stream has called it so far.

    Quotes are escaped inside what the model says, so a match is a member; one of the same name that says something else
    than the stream's model is left alone.
    """
    pattern = _member(member)
    new = msgspec.json.encode(shown)

    def rename(block: bytes, actual: str | None) -> bytes:
        if actual is None:
            return block
        old = msgspec.json.encode(actual)
        return pattern.sub(lambda found: found[1] + new if found[2] == old else found[0], block)

    return rename


@lru_cache(16)
def _member(name: str) -> re.Pattern[bytes]:
    return re.compile(rb'("%b"\s*+:\s*+)("(?:[^"\\]++|\\.)*+")' % re.escape(name.encode()))
