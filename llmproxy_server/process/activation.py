"""Sockets that the service manager has opened for us (systemd's socket activation, sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

import attrs

_FIRST = 3
_NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
OWN_ENDPOINTS = "own_endpoints"
"""What `FileDescriptorName` of a socket unit says for the proxy's own endpoints."""


@attrs.frozen
class Inherited:
    """Listening sockets: those of the routes, and those of the proxy's own endpoints."""

    listening: tuple[socket.socket, ...] = ()
    own: tuple[socket.socket, ...] = ()


def inherited(environ: MutableMapping[str, str]) -> Inherited:
    """
    The sockets that *environ* says were handed to this process; the variables are removed, since they are not for
    our children. ValueError when what was handed down is not a listening stream socket.
    """
    said = [environ.pop(name, "") for name in _NAMES]
    if said[0] != str(os.getpid()) or not said[1].isdecimal():
        return Inherited()
    names = said[2].split(":")
    found: dict[bool, list[socket.socket]] = {False: [], True: []}
    for index in range(int(said[1])):
        is_own = index < len(names) and names[index] == OWN_ENDPOINTS
        found[is_own].append(_listening(_FIRST + index))
    return Inherited(tuple(found[False]), tuple(found[True]))


def _listening(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ValueError(f"descriptor {descriptor}, handed down by LISTEN_FDS, is no socket") from error
    if listens and found.family in (socket.AF_INET, socket.AF_INET6):
        return found
    found.detach()
    what = "is not TCP's" if listens else "does not listen (Accept=yes is not served)"
    raise ValueError(f"descriptor {descriptor}, handed down by LISTEN_FDS, {what}")
