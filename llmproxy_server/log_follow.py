"""The log across reloads: as the configuration says that is served, without a secret of any that is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import attrs

from llmproxy_core.config import Config
from llmproxy_core.errors import Problem
from llmproxy_server import logs
from llmproxy_server.log_redact import Redaction


class LogFollower:
    """
    Knows the configurations that are in use: served, about to be, or still kept by calls.

    *handler* writes the log of this process; None: that is somebody else's business.
    """

    def __init__(self) -> None:
        self.handler: logs.BatchHandler | None = None
        self._in_use: list[Config] = []

    def begin(self) -> None:
        """The running event loop serves from now on."""
        if self.handler is not None:
            self.handler.serve(asyncio.get_running_loop())

    def end(self) -> None:
        """It does not any more."""
        if self.handler is not None:
            self.handler.served()

    def take(self, config: Config, served: Config) -> None:
        """*config* is in use from now on, *served* is what the log follows."""
        self._in_use.append(config)
        self.follow(served)

    def leave(self, config: Config, served: Config) -> None:
        """*config* is not in use any more."""
        self._in_use = [it for it in self._in_use if it is not config]
        self.follow(served)

    def follow(self, served: Config) -> None:
        """Write the log as *served* says."""
        if self.handler is not None:
            secrets = [secret for it in self._in_use for secret in logs.secrets_of(it)]
            self.handler.secrets = tuple(dict.fromkeys([*secrets, *self.handler.secrets]))
            logs.configure(served, self.handler.stream)

    def without_secrets(self, problems: Sequence[Problem]) -> list[Problem]:
        """*problems*, some of which are a plugin's own words, as everybody may read them."""
        redact = Redaction(secret for it in self._in_use for secret in logs.secrets_of(it))
        return [attrs.evolve(it, message=redact(it.message)) for it in problems]
