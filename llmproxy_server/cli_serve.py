"""`llmproxy serve`: the proxy, from its configuration to its end."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmproxy_core.errors import ConfigError
from llmproxy_core.plugins import Registry
from llmproxy_server.cli_exit import Refusal, problems_of
from llmproxy_server.cli_load import as_told, load_registry, load_source, named
from llmproxy_server.cli_terminal import mention
from llmproxy_server.installed import VERSION
from llmproxy_server.loader import Loaded
from llmproxy_server.process.activation import inherited
from llmproxy_server.process.inherited import Inherited
from llmproxy_server.process.notify import Announced, Notifier
from llmproxy_server.process.predecessor import handed_down as handed_down_by_another
from llmproxy_server.source import Source

if TYPE_CHECKING:
    from llmproxy_server.server import Server

_ADDRESSES = ("server.host", "server.own_endpoints")
_ADVICE = {
    errno.EADDRINUSE: "stop the program that listens there, or choose another port with --port",
    errno.EACCES: "ports below 1024 need privileges; choose another port with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another one with --host",
}


def serve(config: str | None, command_line: Mapping[str, object]) -> int:
    """Serve until SIGTERM or Ctrl-C; gives the exit code. *command_line* maps dotted keys to the flags' values."""
    given = _given()
    registry = load_registry()
    source, loaded = load_source(config, registry, command_line)
    try:
        handed_down = given.fitting(loaded.config.server)
    except ValueError as error:
        raise Refusal(str(error)) from error
    with problems_of(named(config)):
        try:
            if loaded.config.server.workers > 1:
                from llmproxy_server.process.cli import serve_workers

                return serve_workers(source, registry, handed_down)
            return _serve(source, loaded, registry, handed_down)
        except ConfigError as error:
            raise _refused(error, loaded) from error


def _given() -> Inherited:
    """The sockets of the version before, or of the service manager. Refusal: they are not what they should be."""
    try:
        return handed_down_by_another(os.environ) or inherited(os.environ)
    except ValueError as error:
        raise Refusal(str(error)) from error


def _serve(source: Source, loaded: Loaded, registry: Registry, handed_down: Inherited) -> int:
    """In this process."""
    from llmproxy_server.banner import banner
    from llmproxy_server.process.takeover import Held, Takeover
    from llmproxy_server.reload_local import LocalReloader
    from llmproxy_server.server import Server

    notifier = Notifier(os.environ)

    def given() -> Inherited | None:
        if not server.life.ready or server.life.draining:
            return None
        shares = [(tuple(each.sockets),) for each in server.listeners]
        listening, own = handed_down.listening, handed_down.own
        return handed_down.handed_on(
            server.config.server,
            shares[0] if listening is None else listening.shares,
            () if len(shares) == 1 else shares[1] if own is None else own.shares,
            server.health.drained.names,
        )

    def started(server: Server) -> None:
        said = banner(
            loaded,
            server.gateway,
            url=server.url,
            own_url=server.own_url,
            version=VERSION,
            handed_down=handed_down.is_managed,
        )
        mention("\n".join(said))  # who calls is served whether somebody reads it or not
        reloader.begin()
        if handed_down.predecessor is not None:
            handed_down.predecessor.relieve(on_our_own)
        else:
            on_our_own({})

    def on_our_own(drains: Mapping[str, bool]) -> None:
        """The version before is gone; *drains* is what it was told while we started."""
        server.life.sockets_stay = handed_down.is_managed or server.life.draining
        for name, drained in drains.items():
            server.health.drained.change(name, drained)
        notifier.ready()

    def stopping() -> None:
        takeover.stop()
        notifier.stopping()

    server = Server(
        loaded.config,
        registry,
        started=started,
        stopping=stopping,
        listening=None if handed_down.listening is None else handed_down.listening.sockets,
        own_listening=None if handed_down.own is None else handed_down.own.sockets,
    )
    server.health.drained.begin(handed_down.drained)
    takeover = Takeover(
        given, server.relieve, drained=lambda: server.health.drained.names, notifier=notifier, tasks=server.tasks
    )
    server.hand_over = takeover.begin
    server.life.sockets_stay = handed_down.is_managed or handed_down.predecessor is not None
    reloader = LocalReloader(server, source, registry)
    server.reloader = Held(Announced(reloader, notifier), takeover, lambda: server.number)
    return server.run()


def _refused(error: ConfigError, loaded: Loaded) -> Exception:
    """*error* for a person: an address that cannot be had is a sentence, not a mistake of the file."""
    cause, problem = error.__cause__, error.problems[0]
    if not isinstance(cause, OSError) or problem.path not in _ADDRESSES:
        return ConfigError(as_told(error.problems, loaded))
    advice = _ADVICE.get(cause.errno or 0)
    if problem.path != "server.host":
        advice = "[server] own_endpoints asks for it"
    return Refusal(f"{problem.message}; {advice}" if advice else problem.message)
