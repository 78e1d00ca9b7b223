"""The errors of injected faults: as a real provider's would come out of an LLM, with words that say whose they are."""

from __future__ import annotations

from typing import Literal

from llmproxy_chaos.strike import Failure
from llmproxy_core import (
    Dialect,
    Exchange,
    Headers,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)

Clock = Literal["first_byte", "idle", "total"]

_SIGNED = "injected by chaos"  # nobody shall look for the cause at the provider
_LATE = {
    "first_byte": "did not begin to answer in time",
    "idle": "fell silent within its answer",
    "total": "did not complete its answer in time",
}


def no_connection(exchange: Exchange) -> UpstreamError:
    return UpstreamConnectError(f"Could not connect to the upstream ({_SIGNED})")


def cut(exchange: Exchange) -> UpstreamError:
    return UpstreamCut(f"The connection to the upstream ended before its answer did ({_SIGNED})")


def garbage(exchange: Exchange) -> UpstreamError:
    return UpstreamGarbage(f"The upstream's answer cannot be understood ({_SIGNED})")


def late(clock: Clock) -> Failure:
    """The time-out of *clock*."""
    return lambda exchange: UpstreamTimeout(
        f"The upstream {_LATE[clock]} ({_SIGNED})", code=f"upstream_timeout_{clock}"
    )


def deadline_passed() -> UpstreamError:
    """What an LLM says when the deadline of the call ends it."""
    return UpstreamTimeout(
        f"The time for this request is over: its deadline passed in a wait {_SIGNED}", code="deadline_exceeded"
    )


def refused(status: int, retry_after_s: float | None) -> Failure:
    """
    An error answer with *status*.

    The protocol of the client reads it, so that its class, code and whether it is worth a retry are those that a real
    answer with this status has.
    """
    fields = [("content-type", "text/plain")]
    if retry_after_s is not None:
        fields.append(("retry-after", f"{retry_after_s:g}"))
    headers = Headers(fields)
    message = f"The provider answered with status {status} ({_SIGNED})"

    def fail(exchange: Exchange) -> UpstreamError:
        dialect = _dialect(exchange)
        if dialect is not None:
            return dialect.read_error(status, headers, message.encode())
        return UpstreamError(message, status=status, upstream_status=status, retry_after_s=retry_after_s)

    return fail


def _dialect(exchange: Exchange) -> Dialect | None:
    """The protocol of the client: a processor's own request is in none."""
    asking: Exchange | None = exchange
    while asking is not None:
        if asking.request.dialect is not None:
            return asking.request.dialect
        asking = asking.parent
    return None
