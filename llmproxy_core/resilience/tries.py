"""The tries of one exchange: how many are left, when the next may begin, and what went wrong so far."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.node import record
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.commit import FIRST_TOKEN, Commit
from llmproxy_core.resilience.failure import Failure

_HINT = "x-should-retry"


@record(eq=False, repr=False)
class Tries:
    """
    Made by the outermost LLM that tries again, and shared by all that it contains: keys, members, groups of groups.

    Whoever would call an LLM after a failure looks at `any_left` first. Only calls count that were made: an LLM that is
    passed over takes no try.
    """

    _retries: Retries
    _until_s: Callable[[], float]
    """Until when somebody waits for the answer, by the clock: as `Exchange.until_s`."""
    _clock: Callable[[], float]
    _chance: random.Random
    left: int
    """How many more may follow the one that is made; below 0 when that has failed and was the last."""
    commit: Commit = FIRST_TOKEN
    """Up to which point of its answer a try may still fail."""
    reached: tuple[str, ...] = attrs.field(init=False, default=())
    """The LLMs that were called; another call of one is a retry."""
    _failed: int = attrs.field(init=False, default=0)
    _ready_s: float | None = attrs.field(init=False, default=None)
    """When the first of those that failed may be asked again."""
    _pause_s: float = attrs.field(init=False, default=0.0)

    @property
    def any_left(self) -> bool:
        """Whether an LLM may be called after those that have failed; not when nobody waits any more."""
        return self.left >= 0 and self._left_s() > 0

    def failed(self, failure: Failure, error: ProxyError) -> None:
        """
        An LLM has failed.

        One that was not asked has told this call nothing. Its own wait (a key that rests, a breaker that is open) is
        not waited for: calls that did would fill the proxy for as long as it takes, and then all come at once.
        """
        if not failure.was_asked:
            return
        self._failed += 1
        self.left -= 1
        backoff_s = self._retries.wait_s(self._failed, self._chance)
        # Whatever troubles this one may trouble the next, unless it is only this key or address.
        self._pause_s = backoff_s if failure is Failure.UPSTREAM else 0.0
        if failure.may_pass and (wait_s := self._wait_s(backoff_s, error.retry_after_s)) is not None:
            ready_s = self._clock() + wait_s
            self._ready_s = ready_s if self._ready_s is None else min(ready_s, self._ready_s)

    def pause_s(self) -> float:
        """
        How long to wait before another LLM is called, in seconds; nobody waits twice for one failure.

        At most half of what is left before the deadline: the other one needs time to answer.
        """
        pause_s, self._pause_s = self._pause_s, 0.0
        return min(pause_s, max(self._left_s(), 0.0) / 2)

    def again_s(self) -> float | None:
        """
        Seconds after which the first of those that failed may be asked again; what they asked for is kept.

        None when nothing that failed may pass, or not soon enough: within the longest wait, and before the deadline.
        """
        if self._ready_s is None:
            return None
        wait_s = max(self._ready_s - self._clock(), 0.0)
        self._ready_s = None
        return wait_s if wait_s < self._left_s() else None

    def _wait_s(self, backoff_s: float, told_s: float | None) -> float | None:
        """
        Seconds until an LLM that has failed may be asked again, *told_s* being what it asks for; None: too long.

        The back-off comes on top, or all who were told the same would come back together; no more of it than half of
        the time that is left then.
        """
        left_s = self._left_s()
        if told_s is None:
            return backoff_s if backoff_s < left_s else None
        if told_s > self._retries.max_backoff_s or told_s >= left_s:
            return None
        return told_s + min(backoff_s, (left_s - told_s) / 2)

    def _left_s(self) -> float:
        """For how many seconds somebody waits."""
        return self._until_s() - self._clock()

    def last_word(self, error: ProxyError) -> ProxyError:
        """*error* as the caller gets it: when we have tried again, SDKs are told not to multiply that."""
        if error.retryable and self.left < self._retries.max_retries - 1:
            error.retryable = False
            if isinstance(error, UpstreamError):
                error.headers = tuple(pair for pair in error.headers if pair[0] != _HINT)
        return error
