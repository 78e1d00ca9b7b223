"""`llmproxy serve`: the proxy, from its configuration to its end."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version

from llmproxy_core.errors import ConfigError
from llmproxy_server.banner import banner
from llmproxy_server.cli_exit import Refusal, problems_of
from llmproxy_server.cli_load import load_configuration, load_registry, named, with_lines
from llmproxy_server.cli_terminal import complain
from llmproxy_server.loader import Loaded
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
    loaded = load_configuration(config, registry, command_line)

    def started(server: Server) -> None:
        said = banner(loaded, server.gateway, url=server.url, own_url=server.own_url, version=version("llmproxy"))
        with suppress(BrokenPipeError):  # nobody reads it; who calls is served all the same
            complain("\n".join(said))

    with problems_of(named(config)):
        try:
            return Server(loaded.config, registry, started=started).run()
        except ConfigError as error:
            raise _refused(error, loaded) from error


def _refused(error: ConfigError, loaded: Loaded) -> Exception:
    """*error* for a person: an address that cannot be had is a sentence, not a mistake of the file."""
    cause, problem = error.__cause__, error.problems[0]
    if not isinstance(cause, OSError) or problem.path not in _ADDRESSES:
        return ConfigError(with_lines(error.problems, loaded))
    advice = _ADVICE.get(cause.errno or 0)
    if problem.path != "server.host":
        advice = "[server] own_endpoints asks for it"
    return Refusal(f"{problem.message}; {advice}" if advice else problem.message)
