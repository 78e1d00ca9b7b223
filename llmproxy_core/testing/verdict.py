"""The finding that a processor or a dialect does not do what it must."""

from __future__ import annotations


class NotConforming(AssertionError):
    """What was found, and what the author can do about it."""
