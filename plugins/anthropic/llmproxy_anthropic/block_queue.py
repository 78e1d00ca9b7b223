"""The blocks of a stream, one at a time: what belongs to a later one waits until those before it are closed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from llmproxy_core import Carried
from llmproxy_core.wire import decode_object

Tell = Callable[[int], bytes]
"""Makes the bytes of an event of a block, given the block's index."""


class Block:
    """
    A block that was begun. *kind* is `text`, `thinking`, `tool`, `custom` or another.

    *stop* is the event that ends it, where it was read and not yet written.
    """

    __slots__ = (
        "arguments",
        "carried",
        "closed",
        "holds",
        "index",
        "kind",
        "late",
        "native",
        "signed",
        "stop",
        "waiting",
    )

    def __init__(self, kind: str, *, native: bool = False) -> None:
        self.index = -1
        """The client's; given to it with its first event."""
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
        self.stop: Tell | None = None
        self.late: list[Tell] = []
        """What comes before the first that it says; a block that says nothing is left out."""
        self.waiting: list[Tell] = []

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
    """Puts out the events of blocks in the order in which they were begun; their indexes have no gaps."""

    def __init__(self, out: list[bytes]) -> None:
        self._out = out
        self._open: deque[Block] = deque()
        self._next_index = 0
        self.copies = False
        """Nobody has changed anything so far: events go out as they come, in whatever order, with their own index."""
        self.last: Block | None = None
        """The block that was begun last."""

    @property
    def unclosed(self) -> list[Block]:
        return [block for block in self._open if not block.closed]

    def begin(self, kind: str, *, native: bool = False, index: int = -1) -> Block:
        """*index* is the provider's, which a block that is copied keeps."""
        block = self.last = Block(kind, native=native)
        if self.copies and index >= 0:
            block.index = index
            self._next_index = max(self._next_index, index + 1)
        self._open.append(block)
        return block

    def say(self, block: Block, event: Tell) -> None:
        """Put out *event* of *block*, now or when its time comes."""
        late, block.late = block.late, []
        if self.copies or (self._open and self._open[0] is block):
            self._tell(block, [*late, event])
        else:
            block.waiting += [*late, event]

    def close(self, block: Block, stop: Tell) -> None:
        """End *block*; those that waited for it may go on."""
        if block.late:
            block.late.clear()
        else:
            self.say(block, stop)
        block.closed = True
        while self._open and self._open[0].closed:
            self._open.popleft()
            if self._open:
                front = self._open[0]
                waiting, front.waiting = front.waiting, []
                self._tell(front, waiting)

    def preview(self, events: list[Tell], index: int) -> bytes:
        """What a block that said *events* now would put out; b"" where others had to be closed before it."""
        if not self.copies:
            if self.unclosed:
                return b""
            index = self._next_index
        return b"".join([event(index) for event in events])

    def forget(self) -> None:
        """Nothing more comes of the open blocks, which their provider did not end."""
        for block in self._open:
            block.closed = True
        self._open.clear()

    def _tell(self, block: Block, events: list[Tell]) -> None:
        if events and block.index < 0:
            block.index = self._next_index
            self._next_index += 1
        self._out += [event(block.index) for event in events]
