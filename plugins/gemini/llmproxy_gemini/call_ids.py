"""Ids for tool calls, which Gemini may do without: calls and results are then paired by their names, in order."""

from __future__ import annotations

import secrets

from llmproxy_core.wire import OpenCalls, made_id

_PREFIX = "call_gg"


def is_made(call_id: str) -> bool:
    """Whether we made *call_id*, so that the provider knows nothing of it."""
    return call_id.startswith(_PREFIX) or not call_id


def new_id() -> str:
    """An id for an answer that came without: the calls of the next such answer are to have others."""
    return secrets.token_urlsafe(17)


class CallIds:
    """The calls of one conversation or answer. The same *facts* and calls give the same ids."""

    __slots__ = ("_count", "_facts", "_given", "_made")

    def __init__(self, *facts: object) -> None:
        self._facts = facts
        self._count = 0
        self._given = OpenCalls[str]()  # ids of the provider's
        self._made = OpenCalls[str]()  # ours

    def call(self, given: str | None, name: str) -> str:
        """The id of the next call."""
        self._count += 1
        if given and not given.startswith(_PREFIX):
            self._given.add(given, name, given)
            return given
        call_id = given or made_id(*self._facts, self._count - 1, name, prefix=_PREFIX)
        self._made.add(call_id, name, call_id)
        return call_id

    def result(self, given: str | None, name: str) -> str:
        """
        The id of the call that a result answers: the first open one of its name where one of them has none.

        A result without an id answers a call without one, while there is any of its name.
        """
        if given:
            found = self._given.take(given, name) or self._made.take(given, name)
            return found or self._made.take("", name) or given
        found = self._made.take("", name) or self._given.take("", name)
        return found or made_id(*self._facts, "result", name, prefix=_PREFIX)
