"""The tries of one exchange: how many are left, when the next may begin, and what went wrong so far."""

from __future__ import annotations

import random
from collections.abc import Callable

from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.commit import FIRST_TOKEN, Commit
from llmproxy_core.resilience.failure import Failure

_HINT = "x-should-retry"


class Tries:
    """
    Made by the outermost LLM that tries again, and shared by all that it contains: keys, members, groups of groups.

    Whoever is about to call an LLM after a failure asks `take` first; the first call of an exchange needs none.
    """

    __slots__ = (
        "_chance",
        "_clock",
        "_deadline_s",
        "_failed",
        "_ready_s",
        "_retries",
        "commit",
        "left",
        "pause_s",
        "reached",
    )

    def __init__(
        self,
        retries: Retries,
        deadline_s: float | None,
        clock: Callable[[], float],
        chance: random.Random,
        commit: Commit = FIRST_TOKEN,
    ) -> None:
        """*deadline_s*: when the exchange must be over, by *clock*; None: no limit of its own."""
        self.commit = commit
        """Up to which point of its answer a try may still fail."""
        self._retries = retries
        self._deadline_s = deadline_s
        self._clock = clock
        self._chance = chance
        self._failed = 0
        self._ready_s: float | None = None
        """When the first of those that failed may be asked again."""
        self.pause_s = 0.0
        """How long to wait before another LLM is called, in seconds."""
        self.left = retries.max_retries
        self.reached: tuple[str, ...] = ()
        """The LLMs that were called; another call of one is a retry."""

    def take(self) -> bool:
        """A try more; False when none is left."""
        if self.left <= 0:
            return False
        self.left -= 1
        return True

    def failed(self, failure: Failure, error: ProxyError) -> None:
        """An LLM that was called has failed, or one that would have been cannot be called now."""
        backoff_s = 0.0
        if failure.was_asked:
            self._failed += 1
            backoff_s = self._retries.wait_s(self._failed, self._chance)
            # Whatever troubles this one may trouble the next, unless it is only this key or address.
            self.pause_s = backoff_s if failure is Failure.UPSTREAM else 0.0
        if failure.may_pass:
            ready_s = self._clock() + max(backoff_s, error.retry_after_s or 0.0)
            self._ready_s = ready_s if self._ready_s is None else min(ready_s, self._ready_s)

    def again_s(self) -> float | None:
        """
        Seconds after which the first of those that failed may be asked again; what they asked for is kept.

        None when nothing that failed may pass, or not soon enough: within the longest wait, and before the deadline.
        """
        if self._ready_s is None:
            return None
        wait_s = max(self._ready_s - self._clock(), 0.0)
        self._ready_s = None
        return wait_s if self.fits(wait_s) else None

    def fits(self, wait_s: float) -> bool:
        """Whether a wait is worth it: it ends before the deadline, and is none of the longest."""
        if wait_s > self._retries.max_backoff_s:
            return False
        return self._deadline_s is None or self._clock() + wait_s < self._deadline_s

    def last_word(self, error: ProxyError) -> ProxyError:
        """*error* as the caller gets it: when we have tried again, SDKs are told not to multiply that."""
        if error.retryable and self.left < self._retries.max_retries:
            error.retryable = False
            if isinstance(error, UpstreamError):
                error.headers = tuple(pair for pair in error.headers if pair[0] != _HINT)
        return error
