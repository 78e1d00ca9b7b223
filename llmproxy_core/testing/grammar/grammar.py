"""What a stream of any protocol must keep to, and how a checker says where it does not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from llmproxy_core.testing.grammar.blocks import BOM, Block, read_blocks
from llmproxy_core.testing.grammar.node import Node, NotJSON, read_json

_FIELDS = frozenset({"", "data", "event"})


class Grammar(ABC):
    """
    The rules of one protocol's stream; one instance checks one stream.

    *failed*: the stream must end with the protocol's own error and not look complete. *usage*: whether it must
    (True) or must not (False) tell the usage; None: either, where the protocol leaves it open. *strict*: what our own
    translations keep to; without it what providers have been seen to send is right too.
    """

    def __init__(self, *, failed: bool = False, usage: bool | None = None, strict: bool = True) -> None:
        self.failed = failed
        self.usage = usage
        self.strict = strict
        self.violations: list[str] = []
        self.where = ""
        """What is looked at: begins each violation."""
        self.over: str | None = None
        """What ended the stream; None before its end."""
        self.error_told = False

    def check(self, stream: bytes) -> list[str]:
        """The violations of the whole *stream*."""
        try:
            stream.decode()
        except UnicodeDecodeError as error:
            self.wrong(f"the bytes are not UTF-8 at {error.start}")
        self.read(stream)
        self.where = "at the end"
        if self.failed and not self.error_told:
            self.wrong("no error was told")
        if not self.failed and self.error_told:
            self.wrong("an error was told")
        self.end()
        return self.violations

    @abstractmethod
    def read(self, stream: bytes) -> None:
        """Read every event of *stream*."""

    @abstractmethod
    def end(self) -> None:
        """Look at what is missing at the end of the stream."""

    def wrong(self, what: str) -> None:
        """Report a violation."""
        self.violations.append(f"{self.where}: {what}" if self.where else what)

    def wrong_if(self, condition: bool, what: str) -> None:
        """Report *what* when *condition* holds."""
        if condition:
            self.wrong(what)

    def as_object(self, value: object) -> Node | None:
        """*value* as the object of an event; None, and a violation, when it is none."""
        if isinstance(value, dict):
            return Node(value, "", self.wrong)
        self.wrong("the data is not an object")
        return None

    def told_error(self, what: str) -> None:
        """An error came: the last event, whose name is *what*."""
        self.error_told = True
        self.over = what


class EventGrammar(Grammar):
    """The rules of a stream of server-sent events."""

    named: ClassVar[bool] = False
    """Whether each event has an `event` line, equal to its `type`."""
    comments: ClassVar[bool] = True
    """Whether clients stand comments."""

    def read(self, stream: bytes) -> None:
        self.wrong_if(self.strict and stream.startswith(BOM), "the stream begins with a byte order mark")
        number = 0
        for block in read_blocks(stream):
            if block.is_comment:
                self.where = f"after event {number}"
                self._check_lines(block)
                continue
            number += 1
            self.where = f"event {number}"
            self._check_lines(block)
            self._read_block(block)

    def _check_lines(self, block: Block) -> None:
        has_comments = bool(block.values(""))
        self.wrong_if(has_comments and not self.comments, "a comment, which clients of this protocol fail on")
        self.wrong_if(self.strict and not block.complete, "no blank line ends it")
        self.wrong_if(self.strict and b"\r" in block.ends, "a line ends with a CR alone")
        self.wrong_if(len(block.values("data")) > 1 and self.strict, "its data has several lines")
        for name, _ in block.fields:
            self.wrong_if(self.strict and name not in _FIELDS, f"a line {name!r}")

    def _read_block(self, block: Block) -> None:
        data = block.data
        if data is None or not data.strip():
            self.wrong("an event without data")
            return
        if self.over is not None:
            self.wrong(f"an event after {self.over}")
            return
        if not self.named:
            self.wrong_if(block.name is not None, f"it has a name, {block.name!r}")
        if self.done(data):
            return
        try:
            node = self.as_object(read_json(data))
        except NotJSON as error:
            self.wrong(f"its data: {error}")
            return
        if node is None:
            return
        if self.named:
            self._check_name(block, node)
        self.event(node)

    def _check_name(self, block: Block, node: Node) -> None:
        kind = node.text("type")
        if kind is not None:
            self.where += f" ({kind})"
            if block.name is None:
                self.wrong("no event line; clients do not see it")
            elif block.name != kind:
                self.wrong(f"its event line says {block.name!r}")

    def done(self, data: str) -> bool:
        """Whether *data* is the protocol's word for the end, and no JSON."""
        return False

    @abstractmethod
    def event(self, node: Node) -> None:
        """Read one event."""
