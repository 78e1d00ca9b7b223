"""When an LLM, or one of its keys, may be used again after its provider said that it may not be now."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from llmproxy_core.errors import ProxyError, UpstreamAuthError
from llmproxy_core.resilience.failure import Failure, Resting

AUTH_REST_S = 30.0
"""How long a key is not used after the provider has refused it, where it does not say itself."""
MOST_REST_S = 86_400.0
"""However long the provider says: quotas are renewed within a day, and what says more may be garbage."""
FIRST_DOUBT_S = 1.0
"""How long a key is in doubt once it is limited for nobody knows how long; twice as long each time it is so again."""
MOST_DOUBT_S = 60.0


class Rest:
    """
    The rest of the LLM *name*, or of one of its keys.

    It rests as long as its provider said, and is not used. It is in doubt where the provider limits it without a time:
    then others are better. It outlives configurations.
    """

    __slots__ = ("_clock", "_doubt_s", "_doubted_until_s", "_name", "_until_s", "_why", "has_been")

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.has_been = False
        """Whether it has rested, or been in doubt, since it last answered: else there is nothing to ask."""
        self._name = name
        self._clock = clock
        self._until_s = -inf
        self._why = Resting("")
        """What is said while it rests, but for the time."""
        self._doubt_s = 0.0
        """How long it was in doubt the last time."""
        self._doubted_until_s = -inf

    @property
    def left_s(self) -> float:
        """Seconds for which it rests; 0.0: it may be used."""
        return max(self._until_s - self._clock(), 0.0) if self.has_been else 0.0

    @property
    def is_in_doubt(self) -> bool:
        """Whether others are to be used first."""
        return self.has_been and self._doubted_until_s > self._clock()

    def begin(self, failure: Failure, error: ProxyError) -> None:
        """*error*, of that kind, came of using it. A rest or a doubt that goes on is not cut short by another."""
        self.has_been = True
        now, wait_s = self._clock(), error.retry_after_s
        if failure is Failure.RATE_LIMIT and self._doubted_until_s <= now:
            self._doubt_s = min(2 * self._doubt_s, MOST_DOUBT_S) or FIRST_DOUBT_S
            self._doubted_until_s = now + self._doubt_s
        if wait_s is None:
            wait_s = AUTH_REST_S if failure is Failure.AUTH else 0.0
        wait_s = min(wait_s, MOST_REST_S)
        if now + wait_s > self._until_s:
            self._until_s = now + wait_s
            self._why = self._said(failure, error)

    def end(self) -> None:
        """It may be used again, whatever its provider said: who operates it knows better."""
        self._until_s = self._doubted_until_s = -inf
        self._doubt_s, self.has_been = 0.0, False

    def answered(self) -> None:
        """It was used, and is limited no more. What the provider said before holds all the same."""
        self._doubt_s, self._doubted_until_s = 0.0, -inf
        self.has_been = self._until_s > self._clock()

    def refusal(self) -> Resting | None:
        """Why it cannot be used now; None where it can. One of its own for each call: it will have a traceback."""
        left_s = self.left_s
        if left_s <= 0:
            return None
        why = self._why
        return Resting(
            why.message,
            why.rests_for,
            status=why.status,
            code=why.code,
            retryable=why.retryable,
            retry_after_s=left_s,
        )

    def _said(self, failure: Failure, error: ProxyError) -> Resting:
        """Nothing of the provider's own text: it was written for the call that it refused, and may name its caller."""
        message, code = error.message, error.code
        if not isinstance(error, UpstreamAuthError):  # whose words are ours
            message = f"The provider of the LLM '{self._name}' wants no calls for some time (status {error.status})"
            code = Resting.code
        return Resting(message, failure, status=error.status, code=code, retryable=error.retryable)
