"""Why not all is well: what `/health` names beside its word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import attrs

from llmproxy_core.exchange import Clock

HOLD_S = 60.0
"""How long something that happened, and is over, is still a reason."""


@attrs.frozen
class Reason:
    """
    One thing that is not as it should be, in our own words: never an upstream's text.

    *part* is what it is about, as `llm.NAME`, `store.NAME`, `reload`, `event_loop`, `log`, `traces` or `worker.N`;
    *code* is stable. *age_s*: for how long it has been so, or how long ago it happened; None: that is not known.
    """

    part: str
    code: str
    message: str
    age_s: float | None = None

    def said(self) -> dict[str, object]:
        said: dict[str, object] = {"part": self.part, "code": self.code, "message": self.message}
        return said if self.age_s is None else {**said, "age_s": round(self.age_s, 1)}


Check = Callable[[], Iterable[Reason]]
"""Asked whenever `/health` is; it neither waits nor raises."""


class Growing:
    """A count of what should not happen: a reason for a minute after it was seen to grow."""

    def __init__(self, part: str, code: str, what: str, count: Callable[[], int], clock: Clock) -> None:
        """*what*, behind the number, is the message: `log lines were dropped since the start`."""
        self._part = part
        self._code = code
        self._what = what
        self._count = count
        self._clock = clock
        self._seen = count()
        self._grew_s = float("-inf")

    def __call__(self) -> Iterator[Reason]:
        now, count = self._clock(), self._count()
        if count > self._seen:
            self._grew_s = now
        self._seen = count
        if now - self._grew_s < HOLD_S:
            yield Reason(self._part, self._code, f"{count} {self._what}", now - self._grew_s)
