"""How long an upstream asks us to wait."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from llmproxy_core.headers import Headers

_MOST = 1e9  # of either unit; what is told to clients is an integer, and none of three hundred digits


def retry_after(headers: Headers, now: datetime) -> float | None:
    """
    Seconds to wait before the next try, or None when *headers* do not say. Never negative, never infinite.

    `retry-after-ms` (milliseconds; OpenAI) is the finer one and wins over `retry-after`, which is a delay or a date
    (RFC 9110 section 10.2.3; providers send fractions too). A date that has passed gives 0.0. A value of neither
    form is ignored: to fail on it would hide the error it came with. *now* is aware.

    >>> retry_after(Headers([("retry-after", "1.5")]), datetime.now(UTC))
    1.5
    """
    if (milliseconds := _delay(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if (seconds := _delay(value)) is not None:
        return seconds
    return None if value is None else _until(value, now)


def _delay(value: str | None) -> float | None:
    """A delay as a number of its unit; None for what is none."""
    try:
        delay = float(value or "")
    except ValueError:
        return None
    return min(max(0.0, delay), _MOST) if math.isfinite(delay) else None


def _until(date: str, now: datetime) -> float | None:
    """Seconds from *now* to an HTTP-date."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # "-0000": a time in UTC, of unknown place (RFC 5322 section 3.3)
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
