"""Points in time: RFC 3339 on the wire, with up to nine digits of a second and any zone; seconds for us."""

from datetime import UTC, datetime


def read_time(text: str | None) -> int | None:
    """Seconds since the epoch; None for what is no time."""
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def write_time(seconds: int) -> str | None:
    """The time in UTC; None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None
