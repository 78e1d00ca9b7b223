"""Which tool call a piece of a stream belongs to, whatever its server makes of indexes and ids."""

from __future__ import annotations

from llmproxy_core.wire.text_tool import TextPieces


class Call:
    """A tool call as far as it is known. *index* is ours, without gaps; *wire_index* the server's, if it gives any."""

    __slots__ = ("id", "index", "is_started", "kind", "name", "text", "wire_index")

    def __init__(self, index: int, wire_index: int | None) -> None:
        self.index = index
        self.wire_index = wire_index
        self.id = ""
        self.name = ""
        self.kind = "function"
        self.is_started = False
        self.text: TextPieces | None = None
        """Finds the text in its arguments, where it is the call of a tool that stands for one that takes a text."""


class CallIndex:
    """The calls of every choice of one stream, in the order they appeared."""

    __slots__ = ("_by_id", "_calls", "_current")

    def __init__(self) -> None:
        self._calls: dict[int, list[Call]] = {}
        self._current: dict[tuple[int, int], Call] = {}
        self._by_id: dict[tuple[int, str], Call] = {}

    def has_calls(self, choice: int) -> bool:
        return choice in self._calls

    def find(self, choice: int, wire_index: int | None, call_id: str, name: str) -> Call:
        """
        The call of a piece, a new one where the piece begins it.

        1. With an index: the call of that index, unless another id and a name show that a second call begins (some
           servers give every parallel call the index 0).
        2. Without an index: the call of that id; else a name begins a call, and anything else continues the last.
        """
        calls = self._calls.setdefault(choice, [])
        if wire_index is not None:
            call = self._current.get((choice, wire_index))
            if call is None or (call_id and name and call.id and call_id != call.id):
                call = self._current[choice, wire_index] = self._new(calls, wire_index)
            if call_id and not call.id:
                self._by_id.setdefault((choice, call_id), call)
            return call
        if call_id:
            if (known := self._by_id.get((choice, call_id))) is None:
                known = self._by_id[choice, call_id] = self._new(calls, None)
            return known
        return self._new(calls, None) if name or not calls else calls[-1]

    @staticmethod
    def _new(calls: list[Call], wire_index: int | None) -> Call:
        call = Call(len(calls), wire_index)
        calls.append(call)
        return call

    def wire_index(self, choice: int, index: int) -> int:
        """The server's index of our call *index*, for a piece of it that we write into the server's stream."""
        calls = self._calls.get(choice, [])
        call = calls[index] if 0 <= index < len(calls) else None
        return index if call is None or call.wire_index is None else call.wire_index
