"""
The head that came over a connection last: the next is mostly the same, or says another thing in a few fields.

What is the same means the same, so such a head is not read again; nor is it looked at again by the door where only
fields differ that nobody looks at there. Of those it is their lines alone that are read. A head holds the client's
credential. It is kept here while calls follow each other on the connection, and not beyond: see `Connection.tick`.
"""

from __future__ import annotations

from itertools import compress, count
from operator import ne

from llmproxy_core.headers import Headers
from llmproxy_core.node import record
from llmproxy_server.door import Door
from llmproxy_server.door_request import Incoming
from llmproxy_server.wire.request_head import NEW_EACH_TIME, read_field, read_length

LONGEST = 1 << 12
"""Bytes of a head that is kept."""
_LENGTH = "content-length"
MAY_DIFFER = NEW_EACH_TIME | {_LENGTH, "x-stainless-retry-count"}
"""
Fields whose values tell nothing of what a call asks of the routes, nor of whether it may: `Door.usual` holds with any.

All that is made of them, as the length of the body is, is made anew for each head.
"""


@record(eq=False, repr=False)
class LastHead:
    """A head that is in order, and what it says. One for a connection."""

    head: bytes
    """All of it, with the empty line: what begins so has the same head."""
    lines: list[str]
    incoming: Incoming
    door: Door
    """By whose rules it was read: what is kept holds for no other."""

    def follow(self, head: bytes, lines: list[str]) -> Incoming | None:
        """
        What *head*, of *lines*, says, which is kept from now on; None unless it differs in a few values alone.

        RequestRejected as `HeadReader.read` has it: what is new is read by the same rules.
        """
        known, said = self.lines, self.incoming
        if len(lines) != len(known) or lines[0] != known[0]:
            return None
        fields, length = list(said.headers), said.length
        for at in compress(count(), map(ne, lines, known)):
            name = fields[at - 1][0]  # the request line is none of them
            if name not in MAY_DIFFER:
                return None
            fields[at - 1] = field = read_field(lines[at])
            if field[0] != name:
                return None
            if name == _LENGTH:
                length = read_length(field[1])
        self.head, self.lines = head, lines
        self.incoming = incoming = Incoming(
            said.method,
            said.target,
            said.path,
            said.query,
            said.version,
            Headers(fields),
            said.peer,
            said.secure,
            length,
            said.keep_alive,
            said.usual,
        )
        return incoming
