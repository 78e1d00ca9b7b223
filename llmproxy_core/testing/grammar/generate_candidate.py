"""One candidate of a stream of Gemini's, and its parts."""

from __future__ import annotations

from llmproxy_core.testing.grammar.node import Node, Report, brief

_FINISHES = frozenset(
    {
        "BLOCKLIST",
        "IMAGE_OTHER",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "LANGUAGE",
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MAX_TOKENS",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
        "OTHER",
        "PROHIBITED_CONTENT",
        "RECITATION",
        "SAFETY",
        "SPII",
        "STOP",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)
_KINDS = ("text", "functionCall", "inlineData", "fileData", "executableCode", "codeExecutionResult")


class Candidate:
    """What the chunks say of one candidate."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.finish: str | None = None
        self._calling = False
        """Whether a call is open, of which more pieces must come."""

    def feed(self, node: Node) -> None:
        """Read what the next chunk says of it."""
        content = node.node("content", must=False)
        parts = None if content is None else content.nodes("parts", must=False)
        finish = node.text("finishReason", must=False, empty=False)
        if self.finish is not None and (self._strict or any(part.value("text") != "" for part in parts or ())):
            node.wrong(f"a chunk after finishReason {brief(self.finish)}")
        if content is not None and (self._strict or content.has("role")):
            content.equal("role", "model")
        if self._strict and not parts and finish is None:
            node.wrong("neither parts nor a finishReason")
        for part in parts or ():
            self._part(part)
        if finish is not None:
            if self._strict and finish not in _FINISHES:
                node.wrong(f"finishReason is {brief(finish)}")
            self.finish = finish

    def _part(self, part: Node) -> None:
        kinds = [name for name in _KINDS if part.has(name)]
        if self._strict and len(kinds) != 1:
            part.wrong(f"a part of {len(kinds)} kinds" if kinds else "a part of no known kind")
        part.text("text", must=False)
        part.text("thoughtSignature", must=False, empty=False)
        if part.has("thought") and not isinstance(part.value("thought"), bool):
            part.wrong(f"thought is {brief(part.value('thought'))}, not true or false")
        call = part.node("functionCall", must=False)
        if call is not None:
            self._call(call)
        elif self._calling:
            part.wrong("a part within an unfinished call")

    def _call(self, call: Node) -> None:
        if self._strict:
            for name in ("partialArgs", "willContinue"):
                if call.has(name):
                    call.wrong(f"{name}: the call is not whole")
            if not call.has("args"):
                call.wrong("args is absent")
        if self._calling:
            if call.has("name"):
                call.wrong("a name within an unfinished call")
        else:
            call.text("name", empty=False)
        call.text("id", must=False, empty=False)
        call.node("args", must=False)
        self._calling = call.value("willContinue") is True

    def check_end(self, report: Report, index: int) -> None:
        """Look at what is missing at the end of the stream."""
        if self.finish is None:
            report(f"candidate {index} has no finishReason")
        if self._calling:
            report(f"candidate {index} has an unfinished call")
