"""
The version whose place this process takes: what it hands down, and what the two tell each other.

Both sides are of different versions of llmproxy: what is said here may be added to, and nothing of it taken away.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress

import msgspec

from llmproxy_server.process.inherited import Inherited, Opened, adopt

VARIABLE = "LLMPROXY_TAKEOVER"
"""The environment variable that holds a HandedDown, as JSON."""
READY = b"r"
"""From the new version: it serves."""
RELIEVED = b"o"
"""From the old one: it ends, and the service manager knows who follows. A LastWords may follow, as JSON."""
_MOST_READ = 1 << 16


class Place(msgspec.Struct):
    """An Opened, of descriptors."""

    shares: list[list[int]]
    address: str | None = None

    @classmethod
    def of(cls, opened: Opened) -> Place:
        return cls([[it.fileno() for it in share] for share in opened.shares], opened.address)

    def opened(self) -> Opened:
        """With every descriptor adopted once, also where several shares have it; ValueError: it is no such socket."""
        numbers = dict.fromkeys(it for share in self.shares for it in share)
        sockets = {number: adopt(number, VARIABLE) for number in numbers}
        return Opened(tuple(tuple(sockets[it] for it in share) for share in self.shares), self.address)


class HandedDown(msgspec.Struct):
    """What the old version hands down to the new one that it starts: numbers of descriptors."""

    channel: int
    """A connected stream socket, for READY and RELIEVED."""
    listening: Place
    own_endpoints: Place | None = None
    drained: tuple[str, ...] = ()
    """The LLMs that are out of service."""


class LastWords(msgspec.Struct):
    """What became otherwise in the old version since it started the new one."""

    drains: dict[str, bool] = {}
    """LLMs that were taken out of service (true), or restored."""


Then = Callable[[Mapping[str, bool]], object]
"""Called when the old version has spoken its last, with the LLMs that it drained, or restored, since it started us."""


class Predecessor:
    """The old version, as the new one sees it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._said = bytearray()

    def relieve(self, then: Then) -> None:
        """
        Tell it that this process serves, so that it drains and ends. In the event loop.

        *then* is called once the service manager knows whom to listen to: before, it would hear nothing from us. Also
        when the old version is gone, which has changed nothing then, and at once where that is known.
        """
        self._channel.setblocking(False)
        with suppress(OSError):  # it is gone, which shows as the end of what it says
            self._channel.send(READY)
        asyncio.get_running_loop().add_reader(self._channel, self._hear, then)

    def _hear(self, then: Then) -> None:
        try:
            data = self._channel.recv(_MOST_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:  # it closes its end once it has said all
            self._said += data
            return
        asyncio.get_running_loop().remove_reader(self._channel)
        self.close()
        then(_last_words(bytes(self._said)).drains)

    def close(self) -> None:
        """Say nothing to it: it takes that for the end of this process, and serves on."""
        self._channel.close()


def handed_down(environ: MutableMapping[str, str]) -> Inherited | None:
    """
    What an old version hands down to this process, None when there is none; the variable is removed, since it is not
    for our children. ValueError when it cannot be used.
    """
    said = environ.pop(VARIABLE, None)
    if said is None:
        return None
    try:
        found = msgspec.json.decode(said, type=HandedDown)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{VARIABLE} is for a process that another one starts: {error}") from error
    own = None if found.own_endpoints is None else found.own_endpoints.opened()
    return Inherited(found.listening.opened(), own, Predecessor(_channel(found.channel)), found.drained)


def _last_words(said: bytes) -> LastWords:
    """None of a version that died, or knows of none."""
    try:
        return msgspec.json.decode(said.removeprefix(RELIEVED), type=LastWords)
    except msgspec.MsgspecError:
        return LastWords()


def _channel(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise ValueError(f"descriptor {descriptor}, handed down by {VARIABLE}, is no socket") from error
