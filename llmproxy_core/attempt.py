"""The upstream calls of an exchange, and the model calls that its processors make."""

from __future__ import annotations

import attrs

from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.node import record
from llmproxy_core.outcome import Outcome
from llmproxy_core.request import Request


@record
class Attempt:
    """One upstream call of an exchange. Times are seconds of the monotonic clock."""

    llm: str
    model: str | None
    started_s: float
    status: int | None = None
    error: ProxyError | None = None
    upstream_id: str | None = None
    """The provider's own id of the call, for its support."""
    headers_s: float | None = None
    sent_s: float | None = None
    """When the first byte of the request was sent."""
    ended_s: float | None = None
    """
    When it failed, or the last of its answer was read; of a stream, when that was over.

    What processors do with a whole answer, and how long its client takes to get it, is no time of the upstream's.
    """
    request: Request | None = None
    """What was asked, with what processors made of it."""
    outcome: Outcome | None = None
    """Of the answer that it gave, once that is over."""
    span_id: int = 0
    """0: nobody records it."""
    key: str | None = None
    """The name of the key that was used, where the LLM has several."""
    next: str | None = None
    """Why another attempt followed."""
    repeated: bool = False
    """Whether it was sent twice: a kept connection had been closed, with not a byte said."""

    def failed(self, error: ProxyError, now: float) -> None:
        """It gave no answer."""
        self.error, self.ended_s = error, now

    def answered(self, outcome: Outcome) -> None:
        """The answer is over."""
        self.outcome = outcome
        if self.ended_s is None:
            self.ended_s = outcome.ended_s
        if isinstance(outcome.error, UpstreamError):
            self.error = outcome.error


class ShownAttempts(list[Attempt]):
    """The attempts of a branch: they are in *whole*, those of its exchange, as soon as they are made."""

    __slots__ = ("_whole",)

    def __init__(self, whole: list[Attempt]) -> None:
        super().__init__()
        self._whole = whole

    def append(self, attempt: Attempt) -> None:
        super().append(attempt)
        self._whole.append(attempt)


@record
class ChildCall:
    """A model call of a processor's own: what `exchange.child` was asked for. Times as in Attempt."""

    processor: str
    """The processor's name in the configuration; "" outside of any."""
    attempts: list[Attempt]
    started_s: float
    ended_s: float | None = None
    span_id: int = 0
    calls: list[ChildCall] = attrs.field(factory=list)
    """Those made in this one's name."""
