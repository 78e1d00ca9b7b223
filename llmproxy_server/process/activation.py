"""Sockets that the service manager has opened for us (systemd's socket activation, sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from llmproxy_server.process.inherited import Inherited, adopt, in_one_share

_FIRST = 3
_NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
OWN_ENDPOINTS = "own_endpoints"
"""What `FileDescriptorName` of a socket unit says for the proxy's own endpoints."""


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
        found[is_own].append(adopt(_FIRST + index, "LISTEN_FDS"))
    return Inherited(in_one_share(found[False]), in_one_share(found[True]))
