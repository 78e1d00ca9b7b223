"""Listening sockets for workers: one each on the same address, held by the parent so that none is ever closed."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from llmproxy_server.listener import BACKLOG, listen

SPREADS = sys.platform == "linux"
"""Whether the kernel spreads connections over sockets of one address; elsewhere all workers accept from one socket."""


def shared_sockets(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    """
    For each worker sockets that listen on every address that *host* stands for; the kernel spreads connections.

    A connection waits in the queue of one of them. As long as the parent keeps that open, the queue outlives the
    worker. OSError when the address cannot be had: also when another process of ours has it, which the kernel would
    let us share.
    """
    if not SPREADS:
        alone = listen(host, port)
        for each in alone:
            each.listen(BACKLOG)
        return [alone] * workers
    if port:
        for each in listen(host, port):  # without SO_REUSEPORT: fails where anybody listens
            each.close()
    made: list[list[socket.socket]] = []
    try:
        for _ in range(workers):
            made.append(listen(host, port, reuse_port=True))
            port = int(made[-1][0].getsockname()[1])
            for each in made[-1]:
                each.listen(BACKLOG)
    except OSError:
        close(made)
        raise
    return made


def close(sockets: Sequence[Sequence[socket.socket]]) -> None:
    for each in sockets:
        for it in each:
            it.close()
