"""Where lines go: a file, a pipe, a terminal, written whole, and given up where it takes none."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

PIPE_BYTES = 4096
"""POSIX's PIPE_BUF as Linux has it: a write of so many bytes is never mixed with another process's."""
_FILE_BYTES = 64 << 10
_WAIT_S = 1.0  # for a descriptor of somebody else's making that does not block
_LOCK_S = 1.0
_TURN_S = 0.002


class Output:
    """
    Takes whole lines. Never raises; blocks as long as its reader does, so it is for a thread of its own.

    Several processes may write to one descriptor: what goes into a pipe or a socket goes line by line in pieces that
    the system keeps together. Where lines may be longer than that (*long_lines*), writers take turns.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.long_lines = False
        self._torn = False
        self._pause = threading.Event()
        self._descriptor: int | None
        try:
            # One of its own: another file that is opened under a number that was closed must not get lines.
            self._descriptor = os.dup(stream.fileno())
            kind = os.fstat(self._descriptor).st_mode
        except (OSError, ValueError, AttributeError):  # memory, or closed: the stream itself knows
            self._descriptor, kind = None, 0
        self._shared = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)

    def close(self) -> None:
        """Let go of what it opened; what is written after that goes through the stream itself."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def write(self, lines: Sequence[bytes]) -> int:
        """Write *lines*, each with its line feed; gives how many went out whole."""
        try:
            if self._descriptor is None:
                self.stream.write(b"".join(lines).decode("utf-8", "replace"))
                self.stream.flush()
                return len(lines)
            with self._in_turn(self._descriptor):
                return self._pieces(self._descriptor, lines)
        except (OSError, ValueError):
            return 0

    def _pieces(self, descriptor: int, lines: Sequence[bytes]) -> int:
        done = 0
        for count, piece in _together(lines, PIPE_BYTES if self._shared else _FILE_BYTES):
            if self._torn:
                piece = b"\n" + piece
            written = self._whole(descriptor, piece)
            if written < len(piece):
                # Half a line may stand there now: the next one must not be taken for its end.
                self._torn = (self._torn and not written) or (bool(written) and piece[written - 1] != 0x0A)
                return done + piece[:written].count(b"\n")
            self._torn = False
            done += count
        return done

    def _whole(self, descriptor: int, data: bytes) -> int:
        """How many bytes of *data* were taken, all unless the output fails."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                with suppress(OSError, ValueError):
                    select.select([], [descriptor], [], _WAIT_S)
            except OSError:
                break
        return len(data) - len(left)

    @contextmanager
    def _in_turn(self, descriptor: int) -> Iterator[None]:
        if not (self._shared and self.long_lines) or sys.platform == "win32":
            yield
            return
        import fcntl

        held = False
        for _ in range(int(_LOCK_S / _TURN_S)):  # one that was stopped in its turn must not silence the others
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._pause.wait(_TURN_S)
            except OSError:
                break
            else:
                held = True
                break
        try:
            yield
        finally:
            if held:
                with suppress(OSError):
                    fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _together(lines: Sequence[bytes], most: int) -> Iterator[tuple[int, bytes]]:
    """*lines* in pieces of at most *most* bytes, or one line each: how many lines, and the bytes."""
    piece = io.BytesIO()
    count = 0
    for line in lines:
        if count and piece.tell() + len(line) > most:
            yield count, piece.getvalue()
            piece, count = io.BytesIO(), 0
        piece.write(line)
        count += 1
    if count:
        yield count, piece.getvalue()
