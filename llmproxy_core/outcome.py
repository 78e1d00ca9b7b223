"""How a response, or a whole exchange, ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

from llmproxy_core.errors import ProxyError, RequestRejected
from llmproxy_core.money import Money
from llmproxy_core.node import record
from llmproxy_core.usage import Usage

MOST_FINISH_WORDS = 128
"""How many an outcome has: as many as a request may ask choices for. Of a stream that tells more, the last."""


class End(StrEnum):
    """The four ways an answer can end."""

    COMPLETED = "completed"
    FAILED = "failed"
    """The upstream, a processor or we ourselves broke."""
    ABANDONED = "abandoned"
    """Nobody wanted it any more: the client went away, or a processor dropped it."""
    REFUSED = "refused"
    """A policy, or the caller's own mistake, stopped it."""

    @classmethod
    def of(cls, error: ProxyError | None) -> End:
        if error is None:
            return cls.COMPLETED
        return cls.REFUSED if isinstance(error, RequestRejected) else cls.FAILED


@record(repr=False)
class KeptBody:
    """The bytes of an answer as its maker would send them (`Response.keep_body`)."""

    api: str
    stream: bool
    data: bytes
    complete: bool = True
    """False: it is the beginning alone, for who asked for as much as there is."""


@record
class Outcome:
    """
    The one end of a response or of an exchange. Made per call; not changed after it was handed out.

    Of an exchange, *usage* and *cost* are the sums over all its responses and children. *usage* is None when no
    model worked for it (estimated, where a provider told none), *cost* None when no price is known. Times
    are seconds of the monotonic clock.
    """

    end: End
    error: ProxyError | None = None
    usage: Usage | None = None
    cost: Money | None = None
    model: str | None = None
    response_id: str | None = None
    """The provider's own id of the answer."""
    finish: tuple[str, ...] = ()
    """The provider's finish words, one per choice; at most MOST_FINISH_WORDS of a stream."""
    body: KeptBody | None = None
    started_s: float = 0.0
    first_byte_s: float | None = None
    """When a whole answer was there, or the first event of a stream that answers something."""
    ended_s: float = 0.0


OnFinish = Callable[[Outcome], Awaitable[None] | None]
"""Called once with the outcome; an async one runs in a task of the gateway's."""
