"""`llmproxy serve` with several workers: sockets, the parent, what is said to people."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Sequence

from llmproxy_core.config import Config
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.plugins import Registry
from llmproxy_server import logs
from llmproxy_server.cli_terminal import mention
from llmproxy_server.front import Address, addresses
from llmproxy_server.missing import load_compiled
from llmproxy_server.process.inherited import Inherited, Opened
from llmproxy_server.process.notify import Notifier
from llmproxy_server.process.parent import CannotBegin, Parent
from llmproxy_server.process.slots import Slot
from llmproxy_server.process.sockets import shared_sockets
from llmproxy_server.runtime import settle_memory
from llmproxy_server.source import Source


def serve_workers(source: Source, registry: Registry, handed_down: Inherited) -> int:
    """
    Serve in the workers that the configuration asks for, until SIGTERM or Ctrl-C; gives the exit code.

    ConfigError when they cannot begin.
    """
    if sys.platform == "win32":
        raise ConfigError([Problem("server.workers", "on Windows there is one worker; expected 1")])
    snapshot = source.read()
    loaded = snapshot.load(registry)
    slots = _slots(loaded.config, handed_down)
    handler = logs.configure(loaded.config)

    async def run() -> int:
        settle_memory()
        parent = Parent(
            source,
            snapshot,
            loaded,
            registry,
            slots,
            started=mention,  # who calls is served whether somebody reads it or not
            notifier=Notifier(os.environ),
            handed_down=handed_down,
        )
        return await parent.run()

    with asyncio.Runner() as runner:  # the standard library's loop: there is little to do, and uvloop is large
        try:
            return runner.run(run())
        except CannotBegin as error:
            load_compiled()  # what a worker cannot load is why it ends, and its traceback no advice
            raise ConfigError(error.problems) from error
        finally:
            handler.flush()


def _slots(config: Config, handed_down: Inherited) -> list[Slot]:
    """A place for each worker, with its sockets. ConfigError when an address cannot be had."""
    count = config.server.workers
    given = {False: handed_down.listening, True: handed_down.own}
    sockets: dict[bool, Sequence[Sequence[socket.socket]]] = {}
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


def _of(address: Address, handed_down: Opened | None, count: int) -> Sequence[Sequence[socket.socket]]:
    """Sockets for each worker; several may have the same."""
    if handed_down is not None:
        return handed_down.dealt(count)
    try:
        return shared_sockets(address.host, address.port, count)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen on {address.host} port {address.port}: {reason}"
        raise ConfigError([Problem(address.key, message)]) from error
