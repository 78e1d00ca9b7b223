"""The beginning of a stream, kept to tell what a byte of the rest amounts to should it break off."""

from __future__ import annotations

from collections.abc import Callable

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
        self._parts: list[tuple[Mould | None, list[bytes]]] = []
        """Texts of events that fit the mould; None: bytes as they are."""
        self.left = SAMPLE_BYTES
        """Bytes that are still to be added."""

    def add(self, block: bytes, mould: Mould | None = None) -> None:
        """*block* follows; it fits *mould*. What of it stands at the beginning is kept."""
        left = self.left
        self.left = left - len(block)
        if mould is None or len(block) > left:
            self._last_of(None).append(block[:left])
        else:
            self._last_of(mould).append(mould.text(block))

    def watched(self, mould: Mould) -> Callable[[bytes, bytes], bool]:
        """
        `mould.passes`, with what it passes kept, as long as anything is; once that is over it passes nothing.

        (A chunk ends with a line end of two bytes.)
        """
        if self.left <= 0:
            return mould.passes
        text, texts = mould.text, self._last_of(mould)

        def passes(chunk: bytes, line: bytes) -> bool:
            left = self.left - len(chunk)  # with its frame: of what may go beyond the end, `add` keeps a part
            if left < 0 or not mould.passes(chunk, line):
                return False
            self.left = left + len(line) + 2
            texts.append(text(chunk[len(line) : -2]))
            return True

        return passes

    def _last_of(self, mould: Mould | None) -> list[bytes]:
        """Where what follows is put."""
        parts = self._parts
        if parts and parts[-1][0] is not mould and not parts[-1][1]:  # nothing has passed
            parts.pop()
        if not parts or parts[-1][0] is not mould:
            parts.append((mould, []))
        return parts[-1][1]

    @property
    def data(self) -> bytes:
        """All of it, as it was."""
        return b"".join([b"".join(texts) if mould is None else mould.filled(texts) for mould, texts in self._parts])
