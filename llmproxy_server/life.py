"""Where the process is in its life: starting, ready, draining."""

from __future__ import annotations


class Life:
    """Whether calls are taken. Changed by the server alone."""

    __slots__ = ("draining", "ready")

    def __init__(self) -> None:
        self.ready = False
        """Everything is loaded and the port is open."""
        self.draining = False
        """What is in flight is finished, nothing new is wanted."""
