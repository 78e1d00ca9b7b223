"""`llmproxy serve` with several workers: sockets, the parent, what is said to people."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

from llmproxy_core.config import Config
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.gateway import Gateway
from llmproxy_core.plugins import Registry
from llmproxy_server import logs
from llmproxy_server.banner import banner
from llmproxy_server.cli_load import LookTransport, look_at
from llmproxy_server.cli_terminal import complain
from llmproxy_server.front import Address, addresses
from llmproxy_server.loader import Loaded
from llmproxy_server.process.activation import Inherited
from llmproxy_server.process.notify import Notifier
from llmproxy_server.process.parent import CannotBegin, Parent, Slot
from llmproxy_server.process.sockets import shared_sockets, url_of
from llmproxy_server.server import loop_factory
from llmproxy_server.source import Source


def serve_workers(source: Source, registry: Registry, handed_down: Inherited) -> int:
    """
    Serve in the workers that the configuration asks for, until SIGTERM or Ctrl-C; gives the exit code.

    ConfigError when they cannot begin.
    """
    if not hasattr(socket, "SO_REUSEPORT"):  # pragma: no cover - Windows
        raise ConfigError([Problem("server.workers", "this system shares no port among processes; expected 1")])
    snapshot = source.read()
    loaded = snapshot.load(registry)
    slots = _slots(loaded.config, handed_down)
    said = "\n".join(_banner(loaded, registry, slots))
    handler = logs.configure(loaded.config)

    def started() -> None:
        with suppress(BrokenPipeError):  # nobody reads it; who calls is served all the same
            complain(said)

    async def run() -> int:
        parent = Parent(source, snapshot, loaded, registry, slots, started=started, notifier=Notifier(os.environ))
        return await parent.run()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(run())
        except CannotBegin as error:
            raise ConfigError(error.problems) from error
        finally:
            handler.flush()


def _slots(config: Config, handed_down: Inherited) -> list[Slot]:
    """A place for each worker, with its sockets. ConfigError when an address cannot be had."""
    count = config.server.workers
    given = {False: handed_down.listening, True: handed_down.own}
    sockets: dict[bool, list[list[socket.socket]]] = {}
    try:
        for address in addresses(config.server):
            sockets[address.own_only] = _of(address, given[address.own_only], count)
    except BaseException:
        for made in sockets.values():
            for each in made:
                for it in each:
                    it.close()
        raise
    own = sockets.get(True)
    return [
        Slot(str(number + 1), sockets[False][number], None if own is None else own[number]) for number in range(count)
    ]


def _of(address: Address, handed_down: Sequence[socket.socket], count: int) -> list[list[socket.socket]]:
    """Sockets for each worker; what was handed down all of them share."""
    if handed_down:
        return [[it.dup() for it in handed_down] for _ in range(count)]
    try:
        return shared_sockets(address.host, address.port, count)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen on {address.host} port {address.port}: {reason}"
        raise ConfigError([Problem(address.key, message)]) from error


def _banner(loaded: Loaded, registry: Registry, slots: Sequence[Slot]) -> list[str]:
    server = loaded.config.server
    tls = server.tls_certificate is not None
    url = url_of(slots[0].listening[0], tls=tls)
    own_url = None if server.own_endpoints is False else url
    if slots[0].own is not None:
        own_url = url_of(slots[0].own[0], tls=False)

    async def look(gateway: Gateway, _: LookTransport) -> list[str]:
        return list(banner(loaded, gateway, url=url, own_url=own_url, version=version("llmproxy")))

    return look_at(loaded, registry, look)
