"""Ids for tool calls, which Gemini may do without: calls and results are then paired by their names, in order."""

from __future__ import annotations

from llmproxy_core.wire import made_id

_PREFIX = "call_gg"


def is_made(call_id: str) -> bool:
    """Whether we made *call_id*, so that the provider knows nothing of it."""
    return call_id.startswith(_PREFIX) or not call_id


class CallIds:
    """The calls of one conversation or answer. The same *facts* and calls give the same ids."""

    __slots__ = ("_count", "_facts", "_pending")

    def __init__(self, *facts: object) -> None:
        self._facts = facts
        self._count = 0
        self._pending: list[tuple[str, str]] = []

    def call(self, given: str | None, name: str) -> str:
        """The id of the next call."""
        call_id = given or made_id(*self._facts, self._count, name, prefix=_PREFIX)
        self._count += 1
        self._pending.append((call_id, name))
        return call_id

    def result(self, given: str | None, name: str) -> str:
        """The id of the call that a result answers: the first open one of its name where one of them has none."""
        fits = [it for it in self._pending if it[0] == given] if given else []
        fits = fits or [it for it in self._pending if it[1] == name and (not given or is_made(it[0]))]
        if fits:
            self._pending.remove(fits[0])
            return fits[0][0]
        return given or made_id(*self._facts, "result", name, prefix=_PREFIX)
