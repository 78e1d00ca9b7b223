"""The grammar of a stream of Anthropic's messages."""

from __future__ import annotations

from typing import ClassVar

from llmproxy_core.testing.grammar.grammar import EventGrammar
from llmproxy_core.testing.grammar.messages_block import MessagesBlock
from llmproxy_core.testing.grammar.node import Node, brief

_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "model_context_window_exceeded",
        "pause_turn",
        "refusal",
        "stop_sequence",
        "tool_use",
    }
)
_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class MessagesGrammar(EventGrammar):
    """
    `message_start`; blocks, one after the other; `message_delta` with the reason and the usage; `message_stop`.

    `ping` anywhere. A failed stream ends with the event `error` and has no `message_stop`.
    """

    named: ClassVar[bool] = True

    def __init__(self, *, failed: bool = False, usage: bool | None = None, strict: bool = True) -> None:
        super().__init__(failed=failed, usage=usage, strict=strict)
        self._begun = False
        self._blocks: list[MessagesBlock] = []
        self._open: int | None = None
        self._deltas = 0
        self._input_told = False

    def event(self, node: Node) -> None:
        kind = node.value("type")
        if kind == "ping":
            return
        if kind == "error":
            self._error(node)
            return
        if kind != "message_start":
            self.wrong_if(not self._begun, "an event before message_start")
        match kind:
            case "message_start":
                self._start(node)
            case "content_block_start":
                self._block_start(node)
            case "content_block_delta":
                self._block_delta(node)
            case "content_block_stop":
                self._block_stop(node)
            case "message_delta":
                self._message_delta(node)
            case "message_stop":
                self._stop()
            case _:
                self.wrong_if(self.strict, "no such event")

    # -- the message -------------------------------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        self.wrong_if(self._begun, "message_start a second time")
        self._begun = True
        message = node.node("message")
        if message is None:
            return
        message.text("id", empty=False)
        message.equal("type", "message")
        message.equal("role", "assistant")
        message.text("model", empty=False)
        message.equal("content", [])
        message.null("stop_reason", may_be_absent=not self.strict)
        message.null("stop_sequence", may_be_absent=not self.strict)
        usage = message.node("usage")
        if usage is not None:
            usage.number("input_tokens")
            usage.number("output_tokens")
            self._input_told = self._counts_input(usage)

    @staticmethod
    def _counts_input(usage: Node) -> bool:
        return any(usage.value(name) not in (0, None) and usage.has(name) for name in _INPUT)

    def _message_delta(self, node: Node) -> None:
        self._deltas += 1
        self.wrong_if(self.strict and self._deltas > 1, "message_delta a second time")
        self.wrong_if(self._open is not None, f"block {self._open} is open")
        delta, usage = node.node("delta"), node.node("usage")
        if delta is not None:
            self._check_reason(node, delta)
        if usage is not None:
            usage.number("output_tokens")
            if self.strict and usage.number("input_tokens") is not None:
                self.wrong_if(not self._input_told and not self._counts_input(usage), "no input token was ever told")

    def _check_reason(self, node: Node, delta: Node) -> None:
        reason = delta.one_of("stop_reason", _REASONS) if self.strict else delta.text("stop_reason", must=False)
        if reason == "stop_sequence":
            delta.text("stop_sequence")
        elif self.strict:
            delta.null("stop_sequence", may_be_absent=False)
        has_calls = any(block.kind == "tool_use" for block in self._blocks)
        self.wrong_if(reason == "tool_use" and not has_calls, "stop_reason is tool_use, and there was no call")
        self.wrong_if(reason == "end_turn" and has_calls, "stop_reason is end_turn, and there were calls")
        if reason in ("tool_use", "end_turn"):
            for index, block in enumerate(self._blocks):
                block.check_input(node, index)

    def _stop(self) -> None:
        self.wrong_if(not self._deltas, "message_stop without message_delta")
        self.wrong_if(self._open is not None, f"block {self._open} is open")
        self.wrong_if(self.failed, "message_stop though the stream failed")
        self.over = "message_stop"

    def _error(self, node: Node) -> None:
        error = node.node("error")
        if error is not None:
            error.text("type", empty=False)
            error.text("message", empty=False)
        self.told_error("the error")

    # -- blocks ------------------------------------------------------------------------------------------------

    def _block_start(self, node: Node) -> None:
        self.wrong_if(self._open is not None, f"block {self._open} is open")
        self.wrong_if(self._deltas > 0, "a block after message_delta")
        node.equal("index", len(self._blocks), "which is the next one")
        block = node.node("content_block")
        if block is not None:
            self._open = len(self._blocks)
            self._blocks.append(MessagesBlock(block, strict=self.strict))

    def _block_delta(self, node: Node) -> None:
        delta = node.node("delta")
        if self._is_open(node) and delta is not None:
            self._blocks[-1].feed(delta)

    def _block_stop(self, node: Node) -> None:
        if self._is_open(node):
            self._blocks[-1].stop(node)
            self._open = None

    def _is_open(self, node: Node) -> bool:
        index = node.number("index")
        if self._open is None:
            self.wrong("no block is open")
            return False
        self.wrong_if(index is not None and index != self._open, f"index is {brief(index)}; open is {self._open}")
        return index == self._open

    def end(self) -> None:
        if self.failed:
            return
        self.wrong_if(not self._begun, "no message_start")
        self.wrong_if(self.over is None, "no message_stop")
