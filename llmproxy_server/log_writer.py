"""
The thread that writes the log, and the bounded queue before it: no output, however slow, holds up a call.

Lines are made by the thread, too, but for those that an event loop put and makes itself, many at a time: two threads
that take turns with the interpreter for every few lines cost a call more than its line does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from llmproxy_core.errors import raise_unless_bug
from llmproxy_server.log_line import Entry, Lines
from llmproxy_server.log_output import Output

GATHER_S = 0.05
"""How long a line waits for others."""
MOST_LINES = 10_000
MOST_BYTES = 32 << 20
"""What may wait, in memory. Beyond that lines are dropped, and counted."""
FLUSH_S = 1.0
"""How long a flush waits for an output that takes nothing."""
MOST_FLUSH_S = 5.0
"""The same for one that does take lines, however slowly: a busy machine is to lose none at its end."""
_FOR_WARNINGS = 500  # lines, kept free for those of level warning and above
_AT_ONCE = 8  # lines, about one write; then others have their turn with the interpreter
_AT_ONCE_IN_LOOP = 64  # then what else the loop has to do has its turn
_BREATH_S = 0.0001


class Made:
    """Lines that are to be written, of so many entries of so many bytes in all."""

    __slots__ = ("lines", "size")

    def __init__(self, lines: list[bytes], size: int) -> None:
        self.lines = lines
        self.size = size


class LineWriter:
    """Takes entries from any thread, without waiting; a thread of its own writes them."""

    def __init__(self, output: Output, lines: Lines, *, warm_up: Callable[[], object] | None = None) -> None:
        """*warm_up* is run once, in the thread, after the first lines."""
        self.lines = lines
        """The form; another one may be set at any time."""
        self.output = output
        self._warm_up = warm_up
        self._lock = threading.RLock()  # a signal's handler may log while its own thread does
        self._written = threading.Condition()
        self._wake, self._hurry, self._breath = threading.Event(), threading.Event(), threading.Event()
        self._queue: deque[Entry] = deque()
        self._made: deque[Made] = deque()
        self._making = threading.Lock()  # held while entries of the queue become lines, so that they keep their order
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._bytes = 0
        self._taken = 0  # entries accepted so far
        self._done = 0  # of these, those that are written or lost
        self._dropped = 0
        self._told = 0  # of the dropped, those that a line has told of
        self._thread: threading.Thread | None = None
        self._closed = False
        self._stuck = False

    @property
    def waiting(self) -> int:
        """How many lines are to be written."""
        return self._taken - self._done

    @property
    def dropped(self) -> int:
        """How many lines were lost: there was no room for them, or the output took none."""
        return self._dropped

    def put(self, entry: Entry) -> None:
        """Have *entry* written, one of level warning or above at once."""
        urgent = entry.level >= logging.WARNING
        with self._lock:
            if entry.size > 1024 and entry.content is not None and self._bytes + entry.size > MOST_BYTES:
                entry.content, entry.size = _no_room, 1024
            most = MOST_LINES if urgent else MOST_LINES - _FOR_WARNINGS
            if (
                self._taken - self._done >= most
                or self._bytes + entry.size > MOST_BYTES
                or (self._closed and self._stuck)
            ):
                self._dropped += 1
                return
            self._queue.append(entry)
            self._bytes += entry.size
            self._taken += 1
            first = len(self._queue) == 1
        if urgent:
            self._hurry.set()
        if urgent or (first and not self._is_left_to_loop(entry)):
            self._wake.set()
            if self._thread is None:
                self._start()

    def follow(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """
        From now on have *loop*, whose thread this is, make the lines of what is put in it; None: the thread does.

        Content is left to the thread: there may be much of it.
        """
        self._loop = loop
        self._loop_thread = 0 if loop is None else threading.get_ident()

    def start(self) -> None:
        """Start the thread now, so that *warm_up* is done when it is needed."""
        self._wake.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="llmproxy-log", daemon=True)
            try:
                if self._closed:
                    raise RuntimeError("closed")
                thread.start()
            except RuntimeError:  # the interpreter ends, and starts no thread any more
                self._drain()
            else:
                self._thread = thread

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """
        Wait until all that was put is written or lost; False when nothing was for *timeout_s*, or all of it takes
        longer than MOST_FLUSH_S.
        """
        with self._lock:
            target = self._taken
        thread = self._thread
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            return self._done >= target
        self._hurry.set()
        self._wake.set()
        wait_s = 0.05 if self._stuck else timeout_s  # who has waited for a stuck output in vain need not do so again
        due_s = time.monotonic() + max(timeout_s, MOST_FLUSH_S)
        with self._written:
            while self._done < target and time.monotonic() < due_s:
                if not self._written.wait(wait_s):
                    break
            done = self._done >= target
        self._stuck = not done
        return done

    def close(self) -> None:
        """Flush, and end the thread. What is put later is written by who puts it, unless the output is stuck."""
        self.flush()
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        self._hurry.set()
        self._wake.set()
        if thread is None:
            self.output.close()
        elif not self._stuck and thread is not threading.current_thread():
            thread.join(FLUSH_S)

    # -- in the event loop ---------------------------------------------------------------------------------------

    def _is_left_to_loop(self, entry: Entry) -> bool:
        loop = self._loop
        if loop is None or entry.content is not None or self._thread is None:
            return False
        if threading.get_ident() != self._loop_thread or loop.is_closed():
            return False
        loop.call_later(GATHER_S, self._make_in_loop)
        return True

    def _make_in_loop(self) -> None:
        if not self._making.acquire(blocking=False):
            self._hand_over()  # the thread makes lines now; it is to look once more when it has done so
            return
        try:
            made = self._next(_AT_ONCE_IN_LOOP, content=False)
            if made is not None:
                self._made.append(made)
        finally:
            self._making.release()
        if made is not None and len(made.lines) == _AT_ONCE_IN_LOOP and self._loop is not None:
            self._loop.call_soon(self._make_in_loop)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._hurry.set()
        self._wake.set()

    # -- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._hurry.wait(GATHER_S)
            self._hurry.clear()
            self._wake.clear()  # before the queue is read: what comes from now on wakes it again
            try:
                self._drain()
                warm_up, self._warm_up = self._warm_up, None
                if warm_up is not None:
                    warm_up()
            except BaseException:  # noqa: BLE001 - what was not written is counted; the thread must outlive any bug
                self._breath.wait(GATHER_S)
        self.output.close()

    def _drain(self) -> None:
        while True:
            with self._making:
                made = self._made.popleft() if self._made else self._next(_AT_ONCE)
            if made is None:
                break
            written = 0
            try:
                self._tell_of_dropped()
                written = self.output.write(made.lines)
            finally:
                with self._lock:
                    self._bytes -= made.size
                    self._dropped += len(made.lines) - written
                self._count(len(made.lines))
            if not self._made and len(made.lines) == _AT_ONCE:
                self._breath.wait(_BREATH_S)

    def _next(self, most: int, *, content: bool = True) -> Made | None:
        """Lines of the next entries, at most so many; None: there are none, or the next one has *content*."""
        with self._lock:
            queue = self._queue
            entries: list[Entry] = []
            for _ in range(min(most, len(queue))):
                if not content and queue[0].content is not None:
                    break
                entries.append(queue.popleft())
        if not entries:
            return None
        size = sum([entry.size for entry in entries])  # a generator takes longer
        try:
            lines = self.lines.quickly(entries)
            return Made([self._encoded(entry) for entry in entries] if lines is None else lines, size)
        except BaseException as bug:  # noqa: BLE001 - a bug in a form: what it cannot say is lost, and counted
            with self._lock:
                self._bytes -= size
                self._dropped += len(entries)
            self._count(len(entries))
            raise_unless_bug(bug)
            return Made([], 0)

    def _count(self, entries: int) -> None:
        with self._written:
            self._done += entries
            self._stuck = False
            self._written.notify_all()

    def _tell_of_dropped(self) -> None:
        dropped = self._dropped
        if dropped == self._told:
            return
        fields = {"dropped": dropped - self._told, "dropped_in_all": dropped}
        told = Entry(time.time(), "llmproxy", logging.WARNING, "log lines were dropped", fields)
        if self.output.write([self._encoded(told)]):
            self._told = dropped

    def _encoded(self, entry: Entry) -> bytes:
        try:
            line = self.lines.line(entry)
        except BaseException as bug:  # noqa: BLE001 - a plugin's value that cannot be said costs its own line alone
            raise_unless_bug(bug)
            said = {"error_type": type(bug).__name__}
            broken = Entry(entry.created, entry.logger, logging.ERROR, "a log line could not be made", said)
            line = self.lines.line(broken)
        return line.encode("utf-8", "replace") + b"\n"


def _no_room() -> dict[str, str]:
    return {"content_dropped": "too much content waits to be written"}
