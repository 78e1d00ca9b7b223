"""One choice of a stream of chat chunks: its deltas in order, its tool calls, its end."""

from __future__ import annotations

from llmproxy_core.testing.grammar.node import ABSENT, Node, brief

COMPLETE = frozenset({"stop", "tool_calls"})
"""The finishes after which the arguments of calls are whole."""
_SAID = ("content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call", "audio", "annotations")


class ChatCall:
    """A tool call as its pieces make it."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.id = ""
        self.name = ""
        self.arguments = ""

    def check_whole(self, choice: Node, *, strict: bool) -> None:
        """Its arguments, which are complete, are the JSON of an object."""
        if self.arguments or strict:  # some providers say nothing for no arguments
            choice.json_object(self.arguments, f"the arguments of call {self.position}")


class ChatChoice:
    """
    The deltas of one choice. *whole_finish*: the chunk with the finish reason may still say something.

    *needs_type*: whether a call names its type and its index, as OpenAI's do and Mistral's need not.
    """

    def __init__(self, *, strict: bool, whole_finish: bool = False, needs_type: bool = True) -> None:
        self._strict = strict
        self._whole_finish = whole_finish
        self._needs_type = needs_type
        self.finish: str | None = None
        self._begun = False
        self._calls: dict[int, ChatCall] = {}

    def feed(self, choice: Node, finishes: frozenset[str]) -> None:
        """Read the next chunk's entry for this choice."""
        delta = choice.node("delta")
        finish = choice.one_of("finish_reason", finishes, must=False) if self._strict else None
        if not self._strict:
            finish = choice.text("finish_reason", must=False)
        if self._strict and not choice.has("finish_reason"):
            choice.wrong("finish_reason is absent, which is not null to every client")
        if delta is not None:
            self._check_order(choice, delta, finish)
            self._read_delta(delta)
        self._begun = True
        if finish is not None:
            if self.finish is not None and self.finish != finish:
                choice.wrong(f"finish_reason is {brief(finish)} after {brief(self.finish)}")
            self.finish = finish
            self._check_calls(choice, finish)

    def _check_order(self, choice: Node, delta: Node, finish: str | None) -> None:
        says = [name for name in _SAID if delta.value(name) not in (ABSENT, None, "", [])]
        if self.finish is not None and (self._strict or says):
            choice.wrong(f"a chunk after finish_reason {brief(self.finish)}")
        if self._strict:
            if finish is not None and says and not self._whole_finish:
                choice.wrong(f"delta has {says[0]} beside the finish_reason")
            if self._begun == delta.has("role"):
                choice.wrong("delta.role in a later chunk" if self._begun else "the first delta has no role")
        if delta.value("role") not in (ABSENT, None):
            delta.equal("role", "assistant")

    def _read_delta(self, delta: Node) -> None:
        self.read_content(delta)
        for name in ("refusal", "reasoning_content", "reasoning"):
            delta.text(name, must=False)
        for position, piece in enumerate(delta.nodes("tool_calls", must=False) or ()):
            self._read_call(piece, position)

    def read_content(self, delta: Node) -> None:
        """The content of a delta: a text, or null."""
        delta.text("content", must=False)

    def _read_call(self, piece: Node, position: int) -> None:
        index = piece.number("index", must=self._strict and self._needs_type)
        if index is None:
            index = self._unnumbered(piece, position)
        call = self._calls.get(index)
        function = piece.node("function")
        if call is None:
            call = self._calls[index] = ChatCall(len(self._calls))
            if self._strict and index != call.position:
                piece.wrong(f"a new call has index {index}, not {call.position}")
            self._begin_call(call, piece, function)
        else:
            self._continue_call(call, piece, function)
        if function is not None:
            self.read_arguments(call, function)

    def _unnumbered(self, piece: Node, position: int) -> int:
        """The index of a piece that gives none: a new call's when it has a name."""
        function = piece.value("function")
        is_new = isinstance(function, dict) and bool(function.get("name"))
        return len(self._calls) if is_new else max(len(self._calls) - 1, position)

    def _begin_call(self, call: ChatCall, piece: Node, function: Node | None) -> None:
        call.id = piece.text("id", empty=not self._strict, must=self._strict) or ""
        if self._needs_type:
            piece.equal("type", "function")
        if call.id and any(other.id == call.id for other in self._calls.values() if other is not call):
            piece.wrong(f"id {brief(call.id)} is another call's")
        if function is not None:
            call.name = function.text("name", empty=False) or ""

    def _continue_call(self, call: ChatCall, piece: Node, function: Node | None) -> None:
        for node, name, known in ((piece, "id", call.id), (function, "name", call.name)):
            if node is not None and (again := node.value(name)) is not ABSENT:
                tolerated = again in (None, "", "null", known) and not self._strict
                if not tolerated:
                    node.wrong(f"{name} {brief(again)} in a later piece of call {call.position}")

    def read_arguments(self, call: ChatCall, function: Node) -> None:
        """The arguments of a piece: a text, which may be absent only where a call begins with its name alone."""
        call.arguments += function.text("arguments", must=self._strict) or ""

    def _check_calls(self, choice: Node, finish: str) -> None:
        if self._strict and finish == "tool_calls" and not self._calls:
            choice.wrong("finish_reason is tool_calls, and there was no call")
        if self._strict and finish == "stop" and self._calls:
            choice.wrong("finish_reason is stop, and there were calls")
        if finish in COMPLETE:
            for call in self._calls.values():
                call.check_whole(choice, strict=self._strict)
