"""The grammar of a stream of OpenAI's responses."""

from __future__ import annotations

from typing import ClassVar

from llmproxy_core.testing.grammar.grammar import EventGrammar
from llmproxy_core.testing.grammar.node import Node, brief
from llmproxy_core.testing.grammar.response_items import ResponseItems

_ENDS = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
_STARTS = {"response.created": "in_progress", "response.in_progress": "in_progress", "response.queued": "queued"}
_SHARED = ("id", "created_at", "model")


class ResponsesGrammar(EventGrammar):
    """
    `response.created`, `response.in_progress`; items; one terminal event with the whole response.

    Events are numbered from 0. A failed stream ends with `error`, then `response.failed`.
    """

    named: ClassVar[bool] = True

    def __init__(self, *, failed: bool = False, usage: bool | None = None, strict: bool = True) -> None:
        super().__init__(failed=failed, usage=usage, strict=strict)
        self._number = 0
        self._first: dict[str, object] | None = None
        self._started: list[str] = []
        self._items = ResponseItems(self)
        self._error_event = False

    def event(self, node: Node) -> None:
        kind = node.text("type") or ""
        if self.strict or node.has("sequence_number"):
            node.equal("sequence_number", self._number)
        self._number += 1
        if self._error_event and kind != "response.failed":
            self.wrong("an event after the error")
        if kind == "error":
            self._error(node)
        elif kind in _STARTS:
            self._start(kind, node)
        elif not self._started:
            self.wrong("an event before response.created")
        elif kind in _ENDS:
            self._end(kind, node)
        else:
            self.wrong_if(self.strict and len(self._started) < 2, "an event before response.in_progress")
            self._items.event(kind, node)

    # -- the response ------------------------------------------------------------------------------------------

    def _start(self, kind: str, node: Node) -> None:
        self.wrong_if(kind in self._started, "a second time")
        self.wrong_if(self._items.begun, "an item came before it")
        if (kind == "response.created") != (not self._started):
            self.wrong("response.created is not the first event")
        self._started.append(kind)
        response = node.node("response")
        if response is not None:
            self._check_shared(response)
            response.equal("status", _STARTS[kind])
            response.equal("output", [])

    def _check_shared(self, response: Node) -> None:
        if self._first is None:
            response.equal("object", "response")
            response.text("id", empty=False)
            response.text("model", empty=False)
            self.wrong_if(not response.has("created_at"), "response.created_at is absent")
            self._first = {name: response.value(name) for name in _SHARED}
            return
        for name in _SHARED:
            response.equal(name, self._first[name], "as in response.created")

    def _end(self, kind: str, node: Node) -> None:
        self.over = kind
        response = node.node("response")
        if response is None:
            return
        self._check_shared(response)
        response.equal("status", _ENDS[kind])
        if kind == "response.failed":
            self._failure(response)
            return
        self.wrong_if(self.failed, f"{kind} though the stream failed")
        self.wrong_if(self._items.open, "an item is open")
        response.null("error", may_be_absent=not self.strict)
        self._items.check_output(response)
        if kind == "response.incomplete":
            details = response.node("incomplete_details")
            if details is not None:
                details.text("reason", empty=False)
        elif self.strict:
            response.null("incomplete_details", may_be_absent=False)
        self._usage(response)

    def _usage(self, response: Node) -> None:
        usage = response.node("usage", must=self.strict)
        if usage is None:
            return
        parts = usage.number("input_tokens"), usage.number("output_tokens")
        total = usage.number("total_tokens")
        if self.strict and None not in parts and total is not None:
            wanted = sum(part or 0 for part in parts)
            self.wrong_if(total != wanted, f"{total} tokens in total, not {brief(wanted)}")

    # -- failures ----------------------------------------------------------------------------------------------

    def _error(self, node: Node) -> None:
        """The members stand in the event itself, or in an `error` in it: OpenAI sends both."""
        facts = node.node("error") if node.has("error") else node
        if facts is not None:
            facts.text("message", empty=False)
            self.wrong_if(not facts.has("code"), "code is absent")
        self._error_event = True
        self.error_told = True

    def _failure(self, response: Node) -> None:
        self.error_told = True
        error = response.node("error")
        if error is not None:
            error.text("code", empty=False)
            error.text("message", empty=False)
        self.wrong_if(self.strict and not self._error_event, "response.failed without the event error")

    def end(self) -> None:
        if not self.failed:
            self.wrong_if(self.over is None, "no terminal event")
        elif self._started:
            self.wrong_if(self.over is None, "no response.failed")
