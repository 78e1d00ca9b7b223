"""One output item of a stream of OpenAI's responses, from its `added` to its `done`."""

from __future__ import annotations

import attrs

from llmproxy_core.testing.grammar.node import Node, brief

TEXTS = {
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_text": "text",
    "summary_text": "text",
}
"""The types of a part, and the member that has its text."""
PARTS_OF = {
    "content": {"message": frozenset({"output_text", "refusal"}), "reasoning": frozenset({"reasoning_text"})},
    "summary": {"reasoning": frozenset({"summary_text"})},
}
"""Which parts which list of which item may have."""
INPUTS = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "mcp_call": "arguments",
    "code_interpreter_call": "code",
}
"""Items that have one text of their own, and the member with it."""


@attrs.define
class ResponsePart:
    """One part of an item: its text so far."""

    kind: str
    text: str = ""
    text_done: bool = False
    done: bool = False
    annotations: int = 0
    last: object = None
    """The part as `done` told it."""


class ResponseItem:
    """The item that `response.output_item.added` begins with *node*."""

    def __init__(self, node: Node, *, strict: bool) -> None:
        self._strict = strict
        self.id = node.text("id", empty=False) or ""
        self.kind = node.text("type") or ""
        self.parts: dict[str, list[ResponsePart]] = {"content": [], "summary": []}
        self.input = ""
        self.input_done = False
        self.done: dict[str, object] | None = None
        """The item as its `done` told it."""
        self._added = node.members
        self._check_added(node)

    def _check_added(self, node: Node) -> None:
        match self.kind:
            case "message":
                node.equal("role", "assistant")
                node.equal("content", [])
            case "function_call":
                node.text("call_id", empty=False)
                node.text("name", empty=False)
                node.equal("arguments", "")
            case "reasoning":
                node.equal("summary", [])
            case _ if self._strict and self.kind != "custom_tool_call":
                node.wrong(f"type is {brief(self.kind)}")
        if self._strict and self.kind in ("message", "function_call"):
            node.equal("status", "in_progress")

    # -- parts -------------------------------------------------------------------------------------------------

    def add_part(self, node: Node, where: str, kind: str | None, index: int | None) -> None:
        """Begin the part of the type *kind* at *index* of the list *where*."""
        parts = self.parts[where]
        if kind not in PARTS_OF[where].get(self.kind, frozenset()):
            node.wrong(f"a part {brief(kind)} in {where} of an item {brief(self.kind)}")
        if any(not part.done for part in parts):
            node.wrong("a part is open")
        if index != len(parts):
            node.wrong(f"the index of the part is {brief(index)}, not {len(parts)}")
        parts.append(ResponsePart(kind or ""))

    def open_part(self, node: Node, where: str, kind: str, index: int | None) -> ResponsePart | None:
        """The open part at *index* of *where*, of the type *kind*; None, and a violation, without it."""
        parts = self.parts[where]
        if kind == "reasoning_text" and index == len(parts) and self.kind == "reasoning":
            parts.append(ResponsePart(kind))  # some servers do not announce it
        if index is None or index >= len(parts) or parts[index].done:
            node.wrong(f"no part {brief(index)} of {where} is open")
            return None
        if parts[index].kind != kind:
            node.wrong(f"part {index} of {where} is {brief(parts[index].kind)}")
            return None
        return parts[index]

    def finish_part(self, node: Node, where: str, index: int | None, part: Node) -> None:
        """Read the end of the part at *index*, told as *part*."""
        kind = part.text("type") or ""
        known = self.open_part(node, where, kind, index)
        if known is None:
            return
        if self._strict and not known.text_done:
            node.wrong("the part is done before its text")
        if kind in TEXTS:
            part.equal(TEXTS[kind], known.text, "as its deltas say")
        annotations = part.value("annotations")
        if isinstance(annotations, list) and len(annotations) != known.annotations:
            part.wrong(f"{len(annotations)} annotations; {known.annotations} were added")
        known.last = part.members
        known.done = True

    # -- its end -----------------------------------------------------------------------------------------------

    def finish(self, node: Node) -> None:
        """Read the whole item that `done` tells."""
        if self._strict or self.kind != "reasoning":  # its id may change
            node.equal("id", self.id, "as it was added")
        for name in ("type", "call_id", "name", "role"):
            if name in self._added:
                node.equal(name, self._added[name], "as it was added")
        if self._strict and self.kind in ("message", "function_call"):
            node.one_of("status", frozenset({"completed", "incomplete"}))
        for where, kinds in PARTS_OF.items():
            if self.kind in kinds:
                self._check_parts(node, where)
        if self.kind in ("function_call", "custom_tool_call"):
            self._check_input(node, INPUTS[self.kind])
        self.done = node.members

    def _check_parts(self, node: Node, where: str) -> None:
        parts = self.parts[where]
        if any(not part.done and part.kind != "reasoning_text" for part in parts):
            node.wrong("a part is open")
        told = node.nodes(where, must=bool(parts)) or []
        if len(told) != len(parts):
            node.wrong(f"{len(told)} parts in {where}; {len(parts)} were added")
        for part, known in zip(told, parts, strict=False):
            part.equal("type", known.kind)
            if known.kind in TEXTS:
                part.equal(TEXTS[known.kind], known.text, "as its deltas say")
            if self._strict and known.last is not None and part.members != known.last:
                part.wrong("not the part that its own event told")

    def _check_input(self, node: Node, member: str) -> None:
        if self._strict and not self.input_done:
            node.wrong(f"the item is done before its {member}")
        node.equal(member, self.input, "as its deltas say")
        if self.kind == "function_call" and node.value("status") == "completed":
            node.json_object(self.input, "the arguments")
