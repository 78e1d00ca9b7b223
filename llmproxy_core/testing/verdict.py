"""The finding that a processor does not do what it must."""

from __future__ import annotations


class NotConforming(AssertionError):
    """What a processor did, and what its author can do about it."""
