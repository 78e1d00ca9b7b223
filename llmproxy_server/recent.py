"""The last calls, for who asks what happened to one of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from heapq import nlargest
from itertools import chain
from operator import itemgetter

from msgspec import structs

from llmproxy_core.outcome import End
from llmproxy_server.access_line import AccessLine, AttemptLine, access_line
from llmproxy_server.log_line import CUT, MAX_VALUE
from llmproxy_server.record import Ended

_COMPLETED = End.COMPLETED  # as a global a fifth as dear: each call asks for it
_ENDED = itemgetter(0)
Over = tuple[float, AccessLine]
"""When a call ended, in seconds since the epoch, and what the log says of it."""


class Recent:
    """
    Keeps what the log says of the last exchanges of a process: of *most* that completed at the first attempt, and of
    as many others.

    The last *most* are always among them. That the others have room of their own keeps a call that failed where
    thousands that went well have come after it. Nothing is kept of bodies, headers and messages.
    """

    __slots__ = ("_clock", "_others", "_plain")

    def __init__(self, most: int, clock: Callable[[], float] = time.time) -> None:
        """*clock* gives seconds since the epoch."""
        self._plain: deque[Over] = deque(maxlen=most)
        self._others: deque[Over] = deque(maxlen=most)
        self._clock = clock

    def ended(self, ended: Ended, line: AccessLine | None, *, ago_s: float = 0.0) -> None:
        """
        Keep an exchange that ended *ago_s* ago; *line* is what the log says of it, None where it says nothing.

        Then it is made for us: 3 µs a call, which `recent_requests = 0` saves where the log is silent.
        """
        if line is None:
            line = access_line(ended, ended.outcome.ended_s)
        kept, attempts = self._plain, line.attempts
        if line.end is not _COMPLETED or line.passed_over is not None or (attempts is not None and len(attempts) > 1):
            kept, line = self._others, _light(line)
        elif len(line.path) + len(line.model or "") + len(line.upstream_request_id or "") > MAX_VALUE:
            line = _light(line)
        kept.append((self._clock() - ago_s, line))

    def newest(self, most: int) -> list[Over]:
        """At most *most* of them, the one that ended last first."""
        return nlargest(most, self._all(), key=_ENDED)

    def find(self, request_id: str) -> Over | None:
        """The exchange of that id; of several, since callers may give ids, the one that ended last."""
        return max((it for it in self._all() if it[1].request_id == request_id), key=_ENDED, default=None)

    def _all(self) -> Iterator[Over]:
        return chain(reversed(self._plain), reversed(self._others))


def _light(line: AccessLine) -> AccessLine:
    """*line* without what nobody is told here, and without texts that somebody made long: it is kept for a while."""
    return structs.replace(
        line,
        path="",
        error_message=None,
        error=_short(line.error),
        model=_short(line.model),
        upstream_request_id=_short(line.upstream_request_id),
        attempts=_all_light(line.attempts),
        passed_over=_all_light(line.passed_over),
        child_attempts=_all_light(line.child_attempts),
    )


def _all_light(attempts: list[AttemptLine] | None) -> list[AttemptLine] | None:
    return None if attempts is None else [_light_attempt(it) for it in attempts]


def _light_attempt(it: AttemptLine) -> AttemptLine:
    return it if it.error is None or len(it.error) <= MAX_VALUE else structs.replace(it, error=CUT)


def _short(text: str | None) -> str | None:
    """*text*, or a mark: a part of it could hold half a secret, which nobody would find."""
    return text if text is None or len(text) <= MAX_VALUE else CUT
