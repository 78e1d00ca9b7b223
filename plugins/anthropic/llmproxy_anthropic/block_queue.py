"""The blocks of a stream, one at a time: what belongs to a later one waits until those before it are closed."""

from __future__ import annotations

import msgspec

from llmproxy_core import Carried
from llmproxy_core.wire import decode_object


class Block:
    """
    A block that was begun. *index* is the client's; *kind* is `text`, `thinking`, `tool`, `custom` or another.

    *stop* is the event that ends it, where it was read and not yet written.
    """

    __slots__ = ("arguments", "carried", "closed", "holds", "index", "kind", "native", "signed", "stop", "waiting")

    def __init__(self, index: int, kind: str, *, native: bool = False) -> None:
        self.index = index
        self.kind = kind
        self.native = native
        """It was read from a stream of this protocol, whose events end it."""
        self.closed = False
        self.holds = False
        """A filter may still hold some of what it says."""
        self.signed = False
        self.carried: Carried | None = None
        """What has to come back with this thinking, which is another provider's."""
        self.arguments: list[str] = []
        self.stop: bytes | None = None
        self.waiting: list[bytes] = []

    @property
    def is_call(self) -> bool:
        return self.kind in {"tool", "custom"}

    @property
    def is_whole(self) -> bool:
        """Whether nothing more can come: of a call, when its arguments are a JSON object."""
        if not self.is_call:
            return True
        try:
            decode_object("".join(self.arguments))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return True


class BlockQueue:
    """Puts out the events of blocks in the order of their indexes, which have no gaps."""

    def __init__(self, out: list[bytes]) -> None:
        self._out = out
        self._open: list[Block] = []
        self._begun = 0
        self.last: Block | None = None
        """The block that was begun last."""

    @property
    def size(self) -> int:
        """How many blocks were begun."""
        return self._begun

    @property
    def unclosed(self) -> list[Block]:
        return [block for block in self._open if not block.closed]

    def begin(self, kind: str, *, native: bool = False) -> Block:
        block = self.last = Block(self._begun, kind, native=native)
        self._begun += 1
        self._open.append(block)
        return block

    def say(self, block: Block, event: bytes) -> None:
        """Put out *event* of *block*, now or when its time comes."""
        if self._open and self._open[0] is block:
            self._out.append(event)
        else:
            block.waiting.append(event)

    def close(self, block: Block, stop: bytes) -> None:
        """End *block*; those that waited for it may go on."""
        self.say(block, stop)
        block.closed = True
        while self._open and self._open[0].closed:
            self._open.pop(0)
            if self._open:
                self._out += self._open[0].waiting
                self._open[0].waiting.clear()
