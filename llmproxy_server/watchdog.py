"""A thread that looks on while the event loop turns, and says who holds it up when it does not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import attrs

from llmproxy_server.culprit import Culprit
from llmproxy_server.log_events import get_logger

LATE_S = 0.25
"""How much later than it should the loop may turn before somebody is named."""
SAY_S = 1.0
"""At most one line in so many seconds."""
_LEAST_S = 0.01
_log = get_logger()


@attrs.frozen
class Finding:
    """Who held up the loop, seen while it lasted. *turned_s* is when the loop had turned last before."""

    turned_s: float
    culprit: Culprit


class Watchdog:
    """
    Watches one event loop, which calls `beat` at least every *period_s* seconds.

    It only reads what others have, never touches the loop, and ends with the process. A block that keeps the
    interpreter's lock (a long call in C) is seen at its end; any other while it lasts.
    """

    def __init__(
        self,
        culprit: Callable[[FrameType], Culprit],
        *,
        period_s: float,
        late_s: float = LATE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.finding: Finding | None = None
        """The last one. Replaced as a whole, so that it can be read at any time."""
        self._culprit = culprit
        self._allowed_s = period_s + late_s
        self._clock = clock
        self._turned_s = clock()
        self._watched = 0
        self._said_of_s: float | None = None
        self._said_s = float("-inf")
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, now: float) -> None:
        """Watch the loop that runs in this thread, and turns now. *now* is of the clock."""
        self._watched = threading.get_ident()
        self._turned_s = now
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="llmproxy-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more. May be called again, and without a start."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(SAY_S)

    def beat(self, now: float) -> None:
        """The loop turns. *now* is of the clock."""
        self._turned_s = now

    # -- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = self._allowed_s
        while not self._stopped.wait(wait_s):
            turned_s = self._turned_s
            over_s = self._clock() - turned_s - self._allowed_s
            if over_s < 0:
                wait_s = max(-over_s, _LEAST_S)
                continue
            wait_s = self._allowed_s
            self._look(turned_s)

    def _look(self, turned_s: float) -> None:
        finding = self.finding
        if finding is None or finding.turned_s != turned_s:
            finding = self._find(turned_s)
        if finding is not None and self._said_of_s != turned_s:
            self._say(finding)

    def _find(self, turned_s: float) -> Finding | None:
        try:
            culprit = self._culprit(sys._current_frames()[self._watched])
        except Exception as bug:  # noqa: BLE001 - it looks at what others change; it must outlive what it finds
            culprit = Culprit(f"somebody who could not be found out ({type(bug).__name__})", None)
        if self._turned_s != turned_s:
            return None  # it turned meanwhile: who was seen need not be who it was
        self.finding = Finding(turned_s, culprit)
        return self.finding

    def _say(self, finding: Finding) -> None:
        now = self._clock()
        if now - self._said_s < SAY_S:
            return  # it is looked at again, if it goes on
        self._said_s, self._said_of_s = now, finding.turned_s
        culprit = finding.culprit
        for_s = round(now - finding.turned_s, 3)
        _log.warning("the event loop is blocked", by=culprit.who, at=culprit.place, for_s=for_s)
