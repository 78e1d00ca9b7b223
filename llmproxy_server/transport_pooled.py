"""What every transport of ours tells of its pool, whatever it is built on."""

from __future__ import annotations

from abc import ABC, abstractmethod

from llmproxy_core.llm import Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.services import Pool


class PooledTransport(ABC):
    """A Transport of llmproxy_core.llm over one pool of connections."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @abstractmethod
    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """See Transport."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection, also those of bodies that are still read; these fail as cut."""

    @property
    def most_connections(self) -> int:
        """How many there may be; 0: no bound."""
        return self._pool.max_connections

    @property
    @abstractmethod
    def connections_in_use(self) -> int:
        """Connections that carry a call or are being made; idle ones do not count."""

    @property
    @abstractmethod
    def connections_open(self) -> int:
        """Those in use, and the idle."""

    @property
    @abstractmethod
    def calls_under_way(self) -> int:
        """Calls whose answer is not complete."""

    @property
    @abstractmethod
    def urls_known(self) -> int:
        """URLs that were taken apart and are remembered."""
