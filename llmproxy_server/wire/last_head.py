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
    _around: tuple[bytes, ...] = ()
    """What is the same in each, before, between and behind the values that vary; nothing while none has."""
    _varying: tuple[str, ...] = ()
    """The fields of those values."""

    def follow(self, data: bytes) -> Incoming | None:
        """
        What the head says that *data* begins with, which is kept from now on.

        None unless it is whole and differs in a few values alone, each in order beyond doubt: the `HeadReader` has the
        verdict then.
        """
        if self._around and (incoming := self._follow_as_before(data)) is not None:
            return incoming
        end = data.find(END, 0, self.limit)
        if end < 0:
            return None
        said, known = self.incoming, _lines(self.head[: -len(END)])
        lines = _lines(data[:end])
        if len(lines) != len(known) or lines[0] != known[0]:
            return None
        fields, length, differing = list(said.headers), said.length, set(self._varying)
        for at in compress(count(), map(ne, lines, known)):
            line, (name, _) = lines[at], fields[at - 1]  # the first line is no field
            spelled, colon, value = line.partition(":")
            if name not in MAY_DIFFER or spelled.lower() != name or not colon:
                return None
            if not line.isascii() or not line.isprintable():
                return None
            value = value.strip(" ")
            if name == _LENGTH:
                if not _is_length(value):
                    return None
                length = int(value)
            fields[at - 1] = (name, value)
            differing.add(name)
        self._around, self._varying = (), ()  # what was the same may be no more
        if not said.headers.has_repeated:
            self._note_varying(lines, fields, differing)
        return self._followed(data[: end + len(END)], Headers(fields), length)

    def _note_varying(self, lines: list[str], fields: list[tuple[str, str]], names: set[str]) -> None:
        """From now on the fields of these *names* are taken to vary, of a head of these *lines*."""
        around, varying = [lines[0]], []
        for line, (name, value) in zip(lines[1:], fields, strict=True):
            around[-1] += "\r\n"
            if name not in names:
                around[-1] += line
            elif line.endswith(value):
                around[-1] += line.removesuffix(value)
                around.append("")
                varying.append(name)
            else:  # there are blanks behind it
                return
        around[-1] += "\r\n\r\n"
        self._around, self._varying = tuple([part.encode("latin-1") for part in around]), tuple(varying)

    def _follow_as_before(self, data: bytes) -> Incoming | None:
        """`follow`, where what varies now has varied before: half as dear."""
        around, said = self._around, self.incoming
        fields, length, end = dict(said.headers.first), said.length, len(around[0])
        if not data.startswith(around[0]):
            return None
        for name, behind in zip(self._varying, around[1:], strict=True):
            begin, end = end, data.find(b"\r\n", end, self.limit)
            if not data.startswith(behind, end):
                return None
            value = data[begin:end].decode("latin-1")
            if not value.isascii() or not value.isprintable():
                return None
            fields[name] = value = value.strip(" ")
            end += len(behind)
            if name == _LENGTH:
                if not _is_length(value):
                    return None
                length = int(value)
        return None if end > self.limit else self._followed(data[:end], Headers.of(fields), length)

    def _followed(self, head: bytes, headers: Headers, length: int) -> Incoming:
        said = self.incoming
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
            length,
            said.keep_alive,
            said.usual,
        )
        return incoming


def _is_length(value: str) -> bool:
    """Of ASCII."""
    return value.isdigit() and len(value) <= LONGEST_LENGTH


def _lines(head: bytes) -> list[str]:
    return head.decode("latin-1").split("\r\n")
