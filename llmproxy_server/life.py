"""Where the process is in its life: starting, ready, draining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

GOODBYE_S = 2.0
"""How long a client has to hear that its connection ends, where others accept in our place."""


class Life:
    """Whether calls are taken. Changed by the server alone."""

    __slots__ = ("_started", "draining", "late", "ready", "sockets_stay")

    def __init__(self) -> None:
        self.ready = False
        """Everything is loaded and the port is open."""
        self.late: list[Callable[[], bool]] = []
        """What is loaded once the port is open: whether each of them is there. Calls are served without, too."""
        self.draining = False
        """What is in flight is finished, nothing new is wanted."""
        self.sockets_stay = False
        """Whether others keep our listening sockets open when we end, and serve what waits in their queues."""
        self._started = asyncio.Event()

    def has_all(self) -> bool:
        """Whether everything is there, also what is loaded late."""
        return all(is_there() for is_there in self.late)

    def begin(self) -> None:
        """It is ready, or will never be."""
        self._started.set()

    async def started(self) -> None:
        """Wait while it is starting."""
        await self._started.wait()
