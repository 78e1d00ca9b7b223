"""Listening sockets for workers: one each on the same address, held by the parent so that none is ever closed."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from llmproxy_server.listener import BACKLOG, listen


def shared_sockets(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    """
    For each worker sockets that listen on every address that *host* stands for; the kernel spreads connections.

    A connection waits in the queue of one of them. As long as the parent keeps that open, the queue outlives the
    worker. OSError when the address cannot be had: also when another process of ours has it, which the kernel would
    let us share.
    """
    first = listen(host, port)  # without SO_REUSEPORT: fails where anybody listens
    chosen = int(first[0].getsockname()[1])
    for each in first:
        each.close()
    made: list[list[socket.socket]] = []
    try:
        for _ in range(workers):
            made.append(listen(host, chosen, reuse_port=True))
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


def url_of(listening: socket.socket, *, tls: bool) -> str:
    """Where it is reached."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
