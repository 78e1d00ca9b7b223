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
from llmproxy_server.wire.request_head import LONGEST_LENGTH, NEW_EACH_TIME

LONGEST = 1 << 12
"""Bytes of a head that is kept."""
END = b"\r\n\r\n"
"""Of a head."""
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
    incoming: Incoming
    door: Door
    """By whose rules it was read: what is kept holds for no other."""
    limit: int
    """Bytes of a head that may follow."""
    _lines: list[str] | None = None
    """Of the head; None: nobody has asked yet."""

    def follow(self, data: bytes) -> Incoming | None:
        """
        What the head says that *data* begins with, which is kept from now on.

        None unless it is whole and differs in a few values alone, each in order beyond doubt: the `HeadReader` has the
        verdict then.
        """
        end = data.find(END, 0, self.limit)
        if end < 0:
            return None
        lines, known, said = data[:end].decode("latin-1").split("\r\n"), self._lines, self.incoming
        if known is None:
            known = self._lines = self.head[: -len(END)].decode("latin-1").split("\r\n")
        if len(lines) != len(known) or lines[0] != known[0]:
            return None
        fields, length = list(said.headers), said.length
        for at in compress(count(), map(ne, lines, known)):
            line, (name, _) = lines[at], fields[at - 1]  # the first line is no field
            spelled, colon, value = line.partition(":")
            if name not in MAY_DIFFER or spelled.lower() != name or not colon:
                return None
            if not line.isascii() or not line.isprintable():
                return None
            value = value.strip(" ")
            if name == _LENGTH:
                if not value.isdigit() or len(value) > LONGEST_LENGTH:
                    return None
                length = int(value)
            fields[at - 1] = (name, value)
        self.head, self._lines = data[: end + len(END)], lines
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
