"""Messages of a request, read."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_anthropic.block_read import read_content
from llmproxy_core.chat import Message, Part, Role, TextPart, ToolCall, ToolResult, remember
from llmproxy_core.wire import STRING, Members, Wire, plain_turn

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}

_LISTED = dict.fromkeys(_ROLES, frozenset[str | None]({"text"}))

CONTINUED = b""
"""What a message remembers that was the later part of one on the wire."""


def read_message(text: bytes, place: str, wire: Wire) -> list[Message]:
    """
    One element of `messages`: of a user's, each run of tool results is a message of the `tool` role.

    The first remembers the bytes of all.
    """
    plain = plain_turn(text, _ROLES, wire.api, _LISTED)
    if plain is not None:
        return [plain]
    members = Members(text, place, wire.fail)
    role = _ROLES.get(members.need("role", STRING))
    if role is None:
        raise wire.fail(members.at("role"), "one of user, assistant, system")
    if members.peek("content") is None:
        raise wire.fail(members.at("content"), "a string or a list of blocks")
    parts = read_content(members, wire)
    extra = members.rest()
    runs = _runs(parts) if role == "user" else [parts]
    messages = []
    for index, run in enumerate(runs):
        own: Role = "tool" if run and isinstance(run[0], ToolResult) else role
        message = Message(own, run, extra=extra if index == 0 else {})
        messages.append(remember(message, wire.api, text if index == 0 else CONTINUED))
    return messages


def perhaps_begun(last: Message, wire: Wire) -> Message:
    """The *last* message: a text of the assistant's there is to be continued; with calls it waits for their results."""
    kinds = {type(part) for part in last.content}
    if last.raw is None or last.role != "assistant" or TextPart not in kinds or ToolCall in kinds:
        return last
    return remember(attrs.evolve(last, prefix=True), wire.api, last.raw.text)


def _runs(parts: Sequence[Part]) -> list[tuple[Part, ...]]:
    """*parts* cut where tool results begin or end; one run, perhaps empty, at least."""
    runs: list[list[Part]] = []
    for part in parts:
        if runs and isinstance(runs[-1][0], ToolResult) == isinstance(part, ToolResult):
            runs[-1].append(part)
        else:
            runs.append([part])
    return [tuple(run) for run in runs] or [()]
