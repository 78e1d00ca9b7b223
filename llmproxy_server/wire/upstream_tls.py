"""TLS to upstreams: who is trusted, and sessions that are resumed (RFC 8446 section 2.2)."""

from __future__ import annotations

import asyncio
import ssl
import sys
from functools import lru_cache

_MOST_SESSIONS = 512


class ResumingContext(ssl.SSLContext):
    """
    Begins each handshake with the session that the same name gave last: half of the work, on both sides.

    A server that does not know it any more makes a new one, and says so in the same handshake. Who was verified once
    is not asked for a certificate again while its session lasts, which the server decides.
    """

    _sessions: dict[str, ssl.SSLSession]

    @classmethod
    def trusting(cls, file: str | None = None) -> ResumingContext:
        """One that trusts whom *file* has, or the system; names and certificates are verified."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        if file is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(file)
        if sys.version_info >= (3, 13):  # pragma: no cover - as `ssl.create_default_context` has it there
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["http/1.1"])
        context._sessions = {}
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As an SSLContext; called by the event loop for each connection."""
        if session is None and isinstance(server_hostname, str):
            session = self._sessions.get(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def keep(self, connected: ssl.SSLObject) -> None:
        """Keep the session of what is *connected*, and has been read from: tickets come behind the handshake."""
        name, session = connected.server_hostname, connected.session
        if name is None or session is None or not session.has_ticket:
            return
        if len(self._sessions) >= _MOST_SESSIONS:
            self._sessions.clear()
        self._sessions[name] = session


def keep_session(transport: asyncio.BaseTransport) -> None:
    """Keep the TLS session of *transport* for the next connection to the same name."""
    connected: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if connected is not None and isinstance(connected.context, ResumingContext):
        connected.context.keep(connected)


@lru_cache(maxsize=1)
def trusting_the_system() -> ResumingContext:
    """The TLS of all whose configuration names no other: who is trusted takes a while to read."""
    return ResumingContext.trusting()
