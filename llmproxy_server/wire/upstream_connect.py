"""Making connections to upstreams: names, TCP (RFC 8305), TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

import aiohappyeyeballs

from llmproxy_core.tasks import Tasks
from llmproxy_server.wire.upstream_connection import UpstreamConnection
from llmproxy_server.wire.upstream_names import Addresses, Names
from llmproxy_server.wire.upstream_pool import Connections, Origin
from llmproxy_server.wire.upstream_tls import trusting_the_system

_NEXT_ADDRESS_S = 0.25
"""After which the next address is tried too (RFC 8305 section 8)."""


class Connector:
    """Connects; how many there may be and how long it may take is asked elsewhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: Tasks, tls: ssl.SSLContext | None) -> None:
        """*tls* says whom to trust; None trusts whom the system does."""
        self._loop = loop
        self._names = Names(loop, tasks)
        self._tls = tls

    async def connect(self, pool: Connections, origin: Origin) -> UpstreamConnection:
        """A new connection to *origin*. Raises the OSError that the event loop, or TLS, gives as the reason."""
        addresses = await self._names.addresses(origin.name, origin.port)
        family, *_, address = addresses[0]
        # To one address the loop itself connects at half the cost; but uvloop loses the zone of one of IPv6.
        if len(addresses) == 1 and family == socket.AF_INET:
            to: dict[str, Any] = {"host": address[0], "port": address[1]}
        else:
            to = {"sock": await self._first_of(addresses)}
        transport, connection = await self._loop.create_connection(
            lambda: UpstreamConnection(pool, origin),
            ssl=self._tls or trusting_the_system() if origin.tls else None,
            server_hostname=origin.name if origin.tls else None,
            **to,
        )
        with suppress(OSError):  # it is gone already, of which we are about to hear
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    async def _first_of(self, addresses: Addresses) -> socket.socket:
        try:
            return await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=self._loop
            )
        except RuntimeError as error:  # of uvloop, for an address that is none
            raise OSError("no address can be connected to") from error

    async def aclose(self) -> None:
        await self._names.aclose()
