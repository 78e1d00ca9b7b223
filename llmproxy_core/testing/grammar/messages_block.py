"""One content block of a stream of Anthropic's messages, from its start to its stop."""

from __future__ import annotations

from llmproxy_core.testing.grammar.node import Node, brief

TAKES = {
    "text": frozenset({"text_delta", "citations_delta"}),
    "thinking": frozenset({"thinking_delta", "signature_delta"}),
    "redacted_thinking": frozenset[str](),
    "tool_use": frozenset({"input_json_delta"}),
}
"""The deltas of the kinds of block that a translation makes."""
_SERVER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})
_DELTAS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


class MessagesBlock:
    """The block that `content_block_start` begins with *node*."""

    def __init__(self, node: Node, *, strict: bool) -> None:
        self._strict = strict
        self.kind = node.text("type") or ""
        self._said = ""
        self._signed = False
        if strict and self.kind not in TAKES:
            node.wrong(f"type is {brief(self.kind)}")
        self._check_start(node)

    def _check_start(self, node: Node) -> None:
        match self.kind:
            case "text":
                node.equal("text", "")
            case "thinking":
                node.equal("thinking", "")
                if self._strict:
                    node.equal("signature", "")
            case "redacted_thinking":
                node.text("data", empty=False)
            case "tool_use":
                node.text("id", empty=False)
                node.text("name", empty=False)
                node.equal("input", {})
            case _:
                pass  # a kind that only providers send

    def feed(self, delta: Node) -> None:
        """Read the next delta."""
        kind = delta.text("type")
        if kind is None:
            return
        takes = TAKES["tool_use"] if self.kind in _SERVER_CALLS else TAKES.get(self.kind)
        if takes is None:
            return  # a kind that only providers send
        if kind not in takes:
            delta.wrong(f"type is {brief(kind)} in a block {brief(self.kind)}")
            return
        if self._signed:
            delta.wrong(f"{kind} after the signature")
        if kind == "citations_delta":
            delta.node("citation")
            return
        text = delta.text(_DELTAS[kind], empty=kind != "signature_delta" or not self._strict)
        if kind == "signature_delta":
            self._signed = True
        else:
            self._said += text or ""

    def stop(self, node: Node) -> None:
        """Its end, which *node* tells."""
        if self._strict and self.kind == "text" and not self._said:
            node.wrong("a text block that says nothing, which cannot be sent back")
        if self._strict and self.kind == "thinking" and not (self._said or self._signed):
            node.wrong("a thinking block that says nothing")

    def check_input(self, node: Node, index: int) -> None:
        """Its input, which is complete, is the JSON of an object; "" says `{}`."""
        if self._said and (self.kind == "tool_use" or self.kind in _SERVER_CALLS):
            node.json_object(self._said, f"the input of block {index}")
