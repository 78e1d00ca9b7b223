"""`llmproxy serve`: the proxy, from its configuration to its end."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from llmproxy_core.config import Config
from llmproxy_core.errors import ConfigError
from llmproxy_core.plugins import Registry
from llmproxy_server.cli_exit import Refusal, problems_of
from llmproxy_server.cli_load import load_registry, load_source, named
from llmproxy_server.cli_terminal import complain
from llmproxy_server.loader import Loaded
from llmproxy_server.process.activation import Inherited, inherited
from llmproxy_server.process.notify import Announced, Notifier
from llmproxy_server.source import Source, with_lines

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
    registry = load_registry()
    source, loaded = load_source(config, registry, command_line)
    handed_down = _handed_down(loaded.config)
    with problems_of(named(config)):
        try:
            if loaded.config.server.workers > 1:
                from llmproxy_server.process.cli import serve_workers

                return serve_workers(source, registry, handed_down)
            return _serve(source, loaded, registry, handed_down)
        except ConfigError as error:
            raise _refused(error, loaded) from error


def _handed_down(config: Config) -> Inherited:
    """The sockets of the service manager that *config* has a use for. Refusal: it handed down others."""
    try:
        found = inherited(os.environ)
    except ValueError as error:
        raise Refusal(str(error)) from error
    if found.own and not isinstance(config.server.own_endpoints, str):
        raise Refusal("a socket own_endpoints was handed down; [server] own_endpoints must be an address then")
    return found


def _serve(source: Source, loaded: Loaded, registry: Registry, handed_down: Inherited) -> int:
    """In this process."""
    from llmproxy_server.banner import banner
    from llmproxy_server.reload_local import LocalReloader
    from llmproxy_server.server import Server

    notifier = Notifier(os.environ)

    def started(server: Server) -> None:
        said = banner(
            loaded,
            server.gateway,
            url=server.url,
            own_url=server.own_url,
            version=version("llmproxy"),
            handed_down=bool(handed_down.listening),
        )
        with suppress(BrokenPipeError):  # nobody reads it; who calls is served all the same
            complain("\n".join(said))
        reloader.begin()
        notifier.ready()

    server = Server(
        loaded.config,
        registry,
        started=started,
        stopping=notifier.stopping,
        listening=handed_down.listening or None,
        own_listening=handed_down.own or None,
    )
    reloader = LocalReloader(server, source, registry)
    server.reloader = Announced(reloader, notifier)
    return server.run()


def _refused(error: ConfigError, loaded: Loaded) -> Exception:
    """*error* for a person: an address that cannot be had is a sentence, not a mistake of the file."""
    cause, problem = error.__cause__, error.problems[0]
    if not isinstance(cause, OSError) or problem.path not in _ADDRESSES:
        return ConfigError(with_lines(error.problems, loaded))
    advice = _ADVICE.get(cause.errno or 0)
    if problem.path != "server.host":
        advice = "[server] own_endpoints asks for it"
    return Refusal(f"{problem.message}; {advice}" if advice else problem.message)
