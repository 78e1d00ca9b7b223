"""Newline-delimited JSON: a stream of lines, each an object. It may be cut anywhere."""

import msgspec

from llmproxy_core import UpstreamGarbage
from llmproxy_core.wire import decode_object

_LONGEST_BYTES = 16 << 20


class LineSplitter:
    """
    Passes a stream on in whole lines; the incomplete rest is held. UpstreamGarbage when that gets too long.

    All that `feed` and `end` return, joined, is the input, but for what `end` leaves out or completes. Time is linear
    in the length of the stream.
    """

    __slots__ = ("_held", "_longest")

    def __init__(self, longest_bytes: int = _LONGEST_BYTES) -> None:
        self._held = bytearray()
        self._longest = longest_bytes

    def feed(self, data: bytes) -> bytes:
        """The lines that are complete by now, with their ends; b"" while there is none."""
        end = data.rfind(b"\n") + 1  # what is held has none
        if not self._held and end == len(data):
            return data
        block = bytes(self._held) + data[:end] if end else b""
        if end:
            self._held.clear()
        self._held += memoryview(data)[end:]
        if len(self._held) > self._longest:
            raise UpstreamGarbage("A line of the provider's stream is too long")
        return block

    def end(self) -> bytes:
        """What is held at the end of the stream, when it is a line but for its end: a prefix of an object is none."""
        rest = bytes(self._held)
        self._held.clear()
        try:
            decode_object(rest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return b""
        return rest + b"\n"


def lines_of(block: bytes) -> list[bytes]:
    """The lines of *block*, which is whole lines, each with its end."""
    return [line + b"\n" for line in block.split(b"\n")[:-1]]
