"""The output items of a stream of OpenAI's responses, and the events that make them."""

from __future__ import annotations

from llmproxy_core.testing.grammar.grammar import Grammar
from llmproxy_core.testing.grammar.node import Node, brief
from llmproxy_core.testing.grammar.response_item import INPUTS, TEXTS, ResponseItem

_TEXT_EVENTS = {
    "output_text": ("content", "output_text"),
    "refusal": ("content", "refusal"),
    "reasoning_text": ("content", "reasoning_text"),
    "reasoning_summary_text": ("summary", "summary_text"),
}
"""The events' name: the list of the item, and the type of the part."""
_PART_EVENTS = {"content_part": "content", "reasoning_summary_part": "summary"}
_INDEXES = {"content": "content_index", "summary": "summary_index"}
_INPUT_EVENTS = {
    "function_call_arguments": "function_call",
    "custom_tool_call_input": "custom_tool_call",
    "mcp_call_arguments": "mcp_call",
    "code_interpreter_call_code": "code_interpreter_call",
}


class ResponseItems:
    """Reads the events between the start and the end of a response."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._items: list[ResponseItem] = []

    @property
    def begun(self) -> bool:
        """Whether there is an item."""
        return bool(self._items)

    @property
    def open(self) -> bool:
        """Whether an item is not done."""
        return any(item.done is None for item in self._items)

    def event(self, kind: str, node: Node) -> None:
        """Read the event of the type *kind*."""
        name, _, what = kind.removeprefix("response.").rpartition(".")
        if name == "output_item" and what == "added":
            self._add(node)
            return
        item = self._item(node, by_item=name == "output_item")
        if item is None:
            return
        if name == "output_item" and what == "done":
            self._finish(item, node)
        elif name in _PART_EVENTS and what in ("added", "done"):
            self._part(item, node, what, _PART_EVENTS[name])
        elif name == "output_text.annotation" and what == "added":
            self._annotation(item, node)
        elif name in _TEXT_EVENTS and what in ("delta", "done"):
            self._text(item, node, what, _TEXT_EVENTS[name])
        elif name in _INPUT_EVENTS and what in ("delta", "done"):
            self._input(item, node, what, _INPUT_EVENTS[name])
        else:
            self._progress(item, name)

    def check_output(self, response: Node) -> None:
        """The output of the whole *response* is the items that were told."""
        output = response.nodes("output")
        if output is None:
            return
        if len(output) != len(self._items):
            response.wrong(f"{len(output)} items in output; {len(self._items)} were told")
        for told, item in zip(output, self._items, strict=False):
            if item.done is None:
                continue
            if self._grammar.strict and told.members != item.done:
                told.wrong("not the item that its own event told")
            for name in ("type", "content", "arguments", "call_id", "name"):
                if name in item.done:
                    told.equal(name, item.done[name], "as the item that its own event told")

    # -- items -------------------------------------------------------------------------------------------------

    def _add(self, node: Node) -> None:
        self._grammar.wrong_if(self.open, "an item is open")
        node.equal("output_index", len(self._items), "which is the next one")
        item = node.node("item")
        if item is None:
            return
        made = ResponseItem(item, strict=self._grammar.strict)
        if any(made.id == other.id for other in self._items):
            item.wrong(f"id {brief(made.id)} is another item's")
        self._items.append(made)

    def _item(self, node: Node, *, by_item: bool) -> ResponseItem | None:
        """The open item that an event is about."""
        index = node.number("output_index")
        if index is None:
            return None
        if index >= len(self._items) or self._items[index].done is not None:
            node.wrong(f"item {index} is not open")
            return None
        item = self._items[index]
        if not by_item:
            node.equal("item_id", item.id, "as the item was added")
        return item

    def _finish(self, item: ResponseItem, node: Node) -> None:
        told = node.node("item")
        if told is not None:
            item.finish(told)

    def _progress(self, item: ResponseItem, name: str) -> None:
        """Steps of built-in tools, which only providers tell of."""
        if self._grammar.strict:
            self._grammar.wrong("no such event")
        elif name != item.kind:
            self._grammar.wrong(f"about an item {brief(item.kind)}")

    # -- what is in them ---------------------------------------------------------------------------------------

    @staticmethod
    def _part(item: ResponseItem, node: Node, what: str, where: str) -> None:
        index = node.number(_INDEXES[where])
        part = node.node("part")
        if part is None:
            return
        if what == "done":
            item.finish_part(node, where, index, part)
            return
        kind = part.text("type")
        item.add_part(node, where, kind, index)
        part.equal("refusal" if kind == "refusal" else "text", "")

    @staticmethod
    def _annotation(item: ResponseItem, node: Node) -> None:
        part = item.open_part(node, "content", "output_text", node.number("content_index"))
        if part is not None:
            node.equal("annotation_index", part.annotations, "which is the next one")
            node.node("annotation")
            part.annotations += 1

    @staticmethod
    def _text(item: ResponseItem, node: Node, what: str, place: tuple[str, str]) -> None:
        where, kind = place
        part = item.open_part(node, where, kind, node.number(_INDEXES[where]))
        if part is None:
            return
        if part.text_done:
            node.wrong("after the text was done")
        if what == "delta":
            part.text += node.text("delta") or ""
        else:
            node.equal(TEXTS[kind], part.text, "as its deltas say")
            part.text_done = True

    @staticmethod
    def _input(item: ResponseItem, node: Node, what: str, kind: str) -> None:
        if item.kind != kind:
            node.wrong(f"about an item {brief(item.kind)}")
        if item.input_done:
            node.wrong("after the input was done")
        if what == "delta":
            item.input += node.text("delta") or ""
        else:
            node.equal(INPUTS[kind], item.input, "as its deltas say")
            item.input_done = True
