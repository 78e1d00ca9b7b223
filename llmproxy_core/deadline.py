"""Until when a call must be over: as the route says, or the caller, whoever is shorter."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llmproxy_core.errors import BadRequest, UpstreamTimeout

TIMEOUT_MS = "x-llmproxy-timeout-ms"
STAINLESS_TIMEOUT = "x-stainless-timeout"
"""Of the SDKs of OpenAI and Anthropic: seconds after which they give up."""


def deadline(began_s: float, limit_s: float | None, headers: Mapping[str, str]) -> float | None:
    """
    The time, on the clock of *began_s*, at which a call with *headers* (names in lower case) must be over.

    None where nobody says. BadRequest for a header of ours that is no number of milliseconds; one of an SDK that cannot
    be read says nothing.
    """
    own, theirs = headers.get(TIMEOUT_MS), headers.get(STAINLESS_TIMEOUT)
    if own is None and theirs is None:
        return None if limit_s is None else began_s + limit_s
    limits = [] if limit_s is None else [limit_s]
    if own is not None:
        if not (own.isascii() and own.isdigit() and 0 < len(own) <= 12 and int(own)):
            raise BadRequest(f"{TIMEOUT_MS} is a number of milliseconds, above 0", param=TIMEOUT_MS)
        limits.append(int(own) / 1000)
    if theirs is not None and (seconds := _seconds(theirs)) is not None:
        limits.append(seconds)
    return began_s + min(limits) if limits else None


def deadline_exceeded() -> UpstreamTimeout:
    """What a call ends with that was not over by then."""
    return UpstreamTimeout("The time for this request is over (its deadline)", code="deadline_exceeded")


def _seconds(said: str) -> float | None:
    try:
        seconds = float(said)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
