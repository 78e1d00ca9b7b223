"""Listening sockets that another process has opened: the service manager, or the version whose place we take."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from llmproxy_core.config import ServerConfig, is_loopback
from llmproxy_server.front import addresses, bound_host

if TYPE_CHECKING:
    from llmproxy_server.process.predecessor import Predecessor

Shares = tuple[tuple[socket.socket, ...], ...]
"""The sockets of an address, by the process that serves them: one share where one process does."""


@attrs.frozen
class Opened:
    """All sockets that listen at an address."""

    shares: Shares
    address: str | None = None
    """As a configuration says it; None: the service manager chose it, whatever a configuration says."""

    @property
    def sockets(self) -> list[socket.socket]:
        """Each once."""
        return list(dict.fromkeys(it for share in self.shares for it in share))

    def dealt(self, workers: int) -> list[tuple[socket.socket, ...]]:
        """
        The sockets of each of so many workers: none is left out, since connections wait in every one.

        Each has a share of its own where there are as many; else all have all.
        """
        if len(self.shares) == workers:
            return list(self.shares)
        return [tuple(self.sockets)] * workers

    def close(self) -> None:
        for it in self.sockets:
            it.close()


@attrs.frozen
class Inherited:
    """Those of the routes, those of the proxy's own endpoints, and who is to be told when we serve."""

    listening: Opened | None = None
    own: Opened | None = None
    predecessor: Predecessor | None = None
    drained: tuple[str, ...] = ()
    """The LLMs that an operator took out of service there."""

    @property
    def is_managed(self) -> bool:
        """Whether the service manager chose where we listen."""
        return self.listening is not None and self.listening.address is None

    def fitting(self, server: ServerConfig) -> Inherited:
        """
        What *server* has a use for; the rest is closed.

        ValueError when the service manager opened what the configuration does not want, or what others can reach.
        """
        if not server.allow_anonymous:
            _check_exposure(self.listening)
            _check_exposure(self.own)
        if self.own is not None and self.own.address is None and not isinstance(server.own_endpoints, str):
            raise ValueError("a socket own_endpoints was handed down; [server] own_endpoints must be an address then")
        wanted = written_addresses(server)
        return attrs.evolve(
            self, listening=_fitting(self.listening, wanted.get(False)), own=_fitting(self.own, wanted.get(True))
        )

    def handed_on(self, server: ServerConfig, listening: Shares, own: Shares, drained: Iterable[str]) -> Inherited:
        """
        What a process that took this hands down itself: *listening* and *own* are what it listens on, as *server* says
        unless the service manager chose it; *drained* is out of service now.
        """
        where = written_addresses(server)
        is_managed = self.own is not None and self.own.address is None
        return Inherited(
            Opened(listening, None if self.is_managed else where[False]),
            Opened(own, None if is_managed else where[True]) if own else None,
            drained=tuple(drained),
        )


def _check_exposure(opened: Opened | None) -> None:
    """As the check of a configuration has it of `host`: what the service manager opened is in none."""
    if opened is None or opened.address is not None:
        return
    for host in map(bound_host, opened.sockets):
        if not is_loopback(host):
            raise ValueError(
                f"the socket that was handed down at {host} can be reached from other machines, and whoever reaches it "
                "would spend your keys; set allow_anonymous = true in [server] if that is meant, or have the socket "
                "unit listen at 127.0.0.1 (ListenStream=127.0.0.1:3000)"
            )


def _fitting(opened: Opened | None, address: str | None) -> Opened | None:
    if opened is None or opened.address in (None, address):
        return opened
    opened.close()
    return None


def written_addresses(server: ServerConfig) -> dict[bool, str]:
    """Where *server* says to listen, that of its own endpoints under True. Not resolved: a name is the same name."""
    return {it.own_only: f"{it.host}:{it.port}" for it in addresses(server)}


def adopt(descriptor: int, giver: str) -> socket.socket:
    """The listening TCP socket that *giver* handed down, from now on ours alone; ValueError when it is none."""
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ValueError(f"descriptor {descriptor}, handed down by {giver}, is no socket") from error
    if listens and found.family in (socket.AF_INET, socket.AF_INET6):
        return found
    found.detach()
    what = "is not TCP's" if listens else "does not listen (Accept=yes is not served)"
    raise ValueError(f"descriptor {descriptor}, handed down by {giver}, {what}")


def in_one_share(sockets: Sequence[socket.socket]) -> Opened | None:
    """Of the service manager's; None when there are none."""
    return Opened((tuple(sockets),)) if sockets else None
