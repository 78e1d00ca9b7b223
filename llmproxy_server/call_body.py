"""The body of a call that is not simply there, with a place free for it: what it waits for, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from llmproxy_core.dialect import Operation
from llmproxy_core.routing import Match
from llmproxy_server.admission import Ticket
from llmproxy_server.door import Shared
from llmproxy_server.door_body import BodyClock, BodyReader, check_length, taken
from llmproxy_server.door_request import BodySource, Incoming

SHORT_BODY_BYTES = 1 << 14
"""What a request for an endpoint of our own may have as its body without asking for room: less than its head."""


class ComingBody:
    """One call's body, and the place and the room that the call has for it: until `leave`."""

    __slots__ = ("_address", "_incoming", "_proceed", "_reader", "_shared", "_source", "_ticket")

    def __init__(
        self, shared: Shared, incoming: Incoming, source: BodySource, address: str, proceed: Callable[[], None]
    ) -> None:
        """The call comes from *address*; *proceed* tells a client that waits for it to send its body."""
        self._shared = shared
        self._incoming = incoming
        self._source = source
        self._address = address
        self._proceed = proceed
        self._ticket: Ticket | None = None
        self._reader: BodyReader | None = None

    def tick(self, now: float) -> None:
        """Called now and then, by the gateway's clock: ends a wait for the client that took too long."""
        if self._reader is not None:
            self._reader.tick(now)

    def leave(self) -> None:
        """Give place and room back."""
        if self._ticket is not None:
            self._ticket.leave()

    async def of(self, match: Match, deadline_s: float | None) -> tuple[bytes, AsyncIterator[bytes] | bytes | None]:
        """
        A place as soon as there is one, and the body, whole; or what is passed on, in pieces if it is still to come.

        A place is for work: a body that is still to come is awaited without. Had they one meanwhile, those who send
        slowly would keep all others out.
        """
        shared, limit = self._shared, match.route.config.max_body_bytes
        if match.operation is Operation.OPAQUE:  # the upstream works for it from its first piece on
            self._ticket = ticket = await self._turn(deadline_s)
            if not self._incoming.length:
                return b"", None
            if self._source.complete:  # it can be sent again
                return b"", taken(self._source, limit, ticket)
            return b"", self._pieces(limit)
        most_bytes = shared.config.max_body_bytes if limit is None else limit
        if self._source.complete:
            self._ticket = ticket = await self._turn(deadline_s)
            return taken(self._source, most_bytes, ticket), None
        self._ticket = outside = shared.admission.outside(self._address)
        body = await self._whole(most_bytes, outside)
        self._ticket = ticket = await self._turn(deadline_s)
        ticket.take_over(outside)
        return body, None

    async def of_own(self) -> bytes:
        """
        The body of a request for an endpoint of our own: without a place, and if it is short, whatever else is held.

        Else nobody could take the very LLM out of service whose calls hold all there is.
        """
        shared = self._shared
        if 0 < self._incoming.length <= min(SHORT_BODY_BYTES, shared.config.max_body_bytes):
            return await self._read().short()
        self._ticket = ticket = Ticket(shared.admission, inside=False)
        return await self._whole(shared.config.max_body_bytes, ticket)

    async def _turn(self, until_s: float | None) -> Ticket:
        """A place; wait for it as long as a caller may and this one has the time."""
        admission = self._shared.admission
        return await admission.wait(self._address, until_s) if admission.is_full else admission.enter()

    async def _whole(self, max_bytes: int, ticket: Ticket) -> bytes:
        return await self._read().whole(self._incoming.length, max_bytes, ticket)

    def _pieces(self, limit: int | None) -> AsyncIterator[bytes]:
        check_length(self._incoming.length, limit)
        return self._read().pieces(limit)

    def _read(self) -> BodyReader:
        server = self._shared.config
        waits = self._incoming.version == (1, 1) and "expect" in self._incoming.headers
        clock = BodyClock(server.body_timeout_s, server.body_min_bytes_per_s)
        begin = self._proceed if waits else None
        self._reader = reader = BodyReader(self._source, clock, self._shared.gateway.services.clock, begin)
        return reader
