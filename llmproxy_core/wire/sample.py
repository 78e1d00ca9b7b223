"""The beginning of a stream, kept to tell what a byte of the rest amounts to should it break off."""

from __future__ import annotations

from llmproxy_core.wire.mould import Mould

SAMPLE_BYTES = 4 << 10
"""How much of a stream is its beginning: some twenty events."""


class Sample:
    """
    The first SAMPLE_BYTES of a stream. One for each scanner.

    Of an event that fits a mould only the text is kept, a fifth of it: what an open stream holds is what an instance
    runs out of first.
    """

    __slots__ = ("_parts", "left")

    def __init__(self) -> None:
        self._parts: list[bytes | tuple[Mould, list[bytes]]] = []
        self.left = SAMPLE_BYTES
        """Bytes that are still to be added."""

    def add(self, block: bytes, mould: Mould | None = None) -> None:
        """*block* follows; it fits *mould*. What of it stands at the beginning is kept."""
        left, parts = self.left, self._parts
        self.left = left - len(block)
        if mould is None or len(block) > left:
            parts.append(block[:left])
        elif parts and type(last := parts[-1]) is tuple and last[0] is mould:
            last[1].append(mould.text(block))
        else:
            parts.append((mould, [mould.text(block)]))

    @property
    def data(self) -> bytes:
        """All of it, as it was."""
        return b"".join([part if isinstance(part, bytes) else part[0].filled(part[1]) for part in self._parts])
