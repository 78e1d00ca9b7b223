"""
The head that came over a connection last: the next is mostly the same, or has another Content-Length and nothing else.

What is the same means the same, so such a head is not read again; any other is. A head holds the client's credential.
It is kept here while calls follow each other on the connection, and not beyond: see `Connection.tick`.
"""

from __future__ import annotations

import re

from llmproxy_core.headers import Headers
from llmproxy_core.node import record
from llmproxy_server.door import Door
from llmproxy_server.door_request import Incoming
from llmproxy_server.wire.request_head import LONGEST_LENGTH

LONGEST = 1 << 12
"""Bytes of a head that is kept."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_NAME = "content-length"


@record(eq=False, repr=False)
class LastHead:
    """A head that is in order, and what it says. One for a connection."""

    head: bytes
    """All of it, with the empty line: what begins so has the same head."""
    incoming: Incoming
    door: Door
    """By whose rules it was read: what is kept holds for no other."""
    _before: bytes | None = None
    """Up to the digits of its Content-Length; None: not looked for yet."""
    _after: bytes = b""
    _fields_before: tuple[tuple[str, str], ...] = ()
    _fields_after: tuple[tuple[str, str], ...] = ()

    def but_for_length(self, head: bytes) -> Incoming | None:
        """What *head* says, which is kept from now on; None unless it is the same but for its Content-Length."""
        if self._before is None:
            self._look_for_length()
        before, after = self._before, self._after
        if not before or not head.startswith(before) or not head.endswith(after):
            return None
        digits = head[len(before) : len(head) - len(after)]
        if not digits.isdigit() or len(digits) > LONGEST_LENGTH:
            return None
        said = self.incoming
        headers = Headers((*self._fields_before, (_NAME, digits.decode()), *self._fields_after))
        self.head = head
        self.incoming = incoming = Incoming(
            said.method,
            said.target,
            said.path,
            said.query,
            said.version,
            headers,
            said.peer,
            said.secure,
            int(digits),
            said.keep_alive,
            said.usual,
        )
        return incoming

    def _look_for_length(self) -> None:
        self._before = b""
        found = _LENGTH.search(self.head)
        if found is not None:
            begin, end = found.span(1)
            self._before, self._after = self.head[:begin], self.head[end:]
            fields = tuple(self.incoming.headers)
            at = [name for name, _ in fields].index(_NAME)
            self._fields_before, self._fields_after = fields[:at], fields[at + 1 :]
