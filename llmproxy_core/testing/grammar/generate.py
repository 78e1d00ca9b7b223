"""The grammar of Gemini's streams: events, or one JSON array."""

from __future__ import annotations

from typing import ClassVar

from llmproxy_core.testing.grammar.generate_candidate import Candidate
from llmproxy_core.testing.grammar.grammar import EventGrammar, Grammar
from llmproxy_core.testing.grammar.node import Node, NotJSON, brief, read_json

_COUNTS = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
_SHARED = ("responseId", "modelVersion")


class _Chunks:
    """The chunks of one answer, however they are framed."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._first: dict[str, object] | None = None
        self._candidates: dict[int, Candidate] = {}
        self._blocked = False
        self._counts: dict[str, int] = {}
        self._last_has_usage = False
        self._tells_prompt = False
        self._last_has_finish = False

    def feed(self, node: Node) -> None:
        """Read the next chunk."""
        grammar = self._grammar
        if node.has("error"):
            self._error(node)
            return
        if grammar.strict:
            self._check_shared(node)
        feedback = node.node("promptFeedback", must=False)
        self._blocked = self._blocked or (feedback is not None and feedback.text("blockReason", must=False) is not None)
        candidates = node.nodes("candidates", must=False) or []
        usage = node.node("usageMetadata", must=False)
        self._last_has_usage = usage is not None
        says_nothing = not candidates and feedback is None and usage is None
        grammar.wrong_if(grammar.strict and says_nothing, "neither candidates nor usageMetadata")
        if candidates:
            self._last_has_finish = any(each.has("finishReason") for each in candidates)
        for position, each in enumerate(candidates):
            self._candidate(each, position)
        if usage is not None:
            self._usage(usage)

    def _candidate(self, node: Node, position: int) -> None:
        index = node.number("index", must=False) if node.has("index") else position
        if index is None:
            return
        if index not in self._candidates:
            self._candidates[index] = Candidate(strict=self._grammar.strict)
        self._candidates[index].feed(node)

    def _check_shared(self, node: Node) -> None:
        if self._first is None:
            self._first = {name: node.text(name, empty=False) for name in _SHARED}
            return
        for name in _SHARED:
            node.equal(name, self._first[name], "as in the first chunk")

    def _usage(self, usage: Node) -> None:
        self._tells_prompt = usage.has("promptTokenCount")
        counts = {name: usage.number(name, must=False) or 0 for name in _COUNTS}
        total = usage.number("totalTokenCount", must=False)
        if not self._grammar.strict:
            return
        for name, count in counts.items():
            if count < self._counts.get(name, 0):
                usage.wrong(f"{name} sinks from {self._counts[name]} to {count}")
        self._counts = counts
        if total is not None and total != sum(counts.values()):
            usage.wrong(f"totalTokenCount is {total}, not the sum {sum(counts.values())}")

    def _error(self, node: Node) -> None:
        error = node.node("error")
        if error is not None:
            error.number("code")
            error.text("message", empty=False)
            error.text("status", empty=False)
        self._grammar.told_error("the error")

    def end(self) -> None:
        """Look at what is missing."""
        grammar = self._grammar
        if grammar.failed:
            finished = bool(self._candidates) and all(each.finish for each in self._candidates.values())
            grammar.wrong_if(finished, "every candidate has a finishReason though the stream failed")
            return
        grammar.wrong_if(not self._candidates and not self._blocked, "no candidate was made, and no prompt blocked")
        if sorted(self._candidates) != list(range(len(self._candidates))):
            grammar.wrong(f"the indexes of the candidates are {brief(sorted(self._candidates))}")
        for index, candidate in sorted(self._candidates.items()):
            candidate.check_end(grammar.wrong, index)
        grammar.wrong_if(not self._last_has_usage, "the last chunk has no usageMetadata")
        if grammar.strict:
            grammar.wrong_if(
                bool(self._candidates) and not self._last_has_finish, "the last candidates have no finishReason"
            )
            grammar.wrong_if(not self._tells_prompt, "no promptTokenCount was told")


class GenerateGrammar(EventGrammar):
    """
    Events without names, and no word for the end: the last chunk has the finishReason and the usageMetadata.

    No comments: google-genai fails on them. A failed stream ends with `{"error": …}` and is not finished.
    """

    comments: ClassVar[bool] = False

    def __init__(self, *, failed: bool = False, usage: bool | None = None, strict: bool = True) -> None:
        super().__init__(failed=failed, usage=usage, strict=strict)
        self._chunks = _Chunks(self)

    def event(self, node: Node) -> None:
        self._chunks.feed(node)

    def end(self) -> None:
        self._chunks.end()


class GenerateArrayGrammar(Grammar):
    """The same chunks as the elements of one JSON array, which is closed even where the stream failed."""

    def __init__(self, *, failed: bool = False, usage: bool | None = None, strict: bool = True) -> None:
        super().__init__(failed=failed, usage=usage, strict=strict)
        self._chunks = _Chunks(self)

    def read(self, stream: bytes) -> None:
        try:
            elements = read_json(stream.decode(errors="replace"))
        except NotJSON as error:
            self.wrong(f"the body: {error}")
            return
        if not isinstance(elements, list):
            self.wrong("the body is not an array")
            return
        for index, element in enumerate(elements):
            self.where = f"element {index}"
            if self.over is not None:
                self.wrong(f"an element after {self.over}")
            elif (node := self.as_object(element)) is not None:
                self._chunks.feed(node)

    def end(self) -> None:
        self._chunks.end()
