"""A reload of all workers: each builds the configuration, then all serve it, or none does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import attrs

from llmproxy_core.errors import ConfigError, Problem, raise_unless_bug
from llmproxy_core.plugins import Registry
from llmproxy_server import logs
from llmproxy_server.difference import difference
from llmproxy_server.generation import Certificate, kept_settings
from llmproxy_server.loader import Loaded
from llmproxy_server.log_events import get_logger
from llmproxy_server.process import messages
from llmproxy_server.process.child import Child
from llmproxy_server.process.slots import Slots
from llmproxy_server.reload import Reloaded, read_aside
from llmproxy_server.source import Snapshot, Source

_log = get_logger()
PREPARE_S = 30.0
"""How long a worker may take to build a configuration."""
COMMIT_S = 5.0
"""How long is waited for workers to say that they serve it: one whose loop is blocked does so later."""


class Reloading:
    """What is served, and how another configuration takes its place. Its calls must not overlap."""

    def __init__(
        self, source: Source, snapshot: Snapshot, loaded: Loaded, registry: Registry, *, prepare_s: float = PREPARE_S
    ) -> None:
        """*snapshot* is what *loaded* was made of. ConfigError when the certificate cannot be read."""
        self.slots: Slots
        """To be set before the first reload."""
        self.first = snapshot.to_bytes()
        """What the process began with."""
        self.snapshot = snapshot
        """What a worker that begins now is to serve."""
        self.number = 1
        """Of its generation."""
        self.config = loaded.config
        """What is served, with what only a restart changes as it was."""
        self._given = loaded.config
        self._digest = Certificate.read(loaded.config.server).digest
        self._source = source
        self._registry = registry
        self._prepare_s = prepare_s
        self._attempt = 0

    async def reload(self) -> Reloaded:
        """Read the configuration and have all workers serve it. ConfigError: nothing has changed."""
        snapshot, loaded, digest = await read_aside(self._read)  # workers are kept and answered meanwhile
        server, kept = kept_settings(self.config.server, loaded.config.server)
        if loaded.config == self._given and digest == self._digest:
            return Reloaded(True, self.number, kept_settings=kept, unchanged=True, warnings=loaded.warnings)
        found = difference(self.config, loaded.config)
        await self._serve(snapshot)
        changes = [str(change) for change in found.taking_effect]
        if digest != self._digest:
            changes.append("the certificate was renewed")
        self._given, self.config, self._digest = loaded.config, attrs.evolve(loaded.config, server=server), digest
        logs.configure(self.config)
        return Reloaded(True, self.number, kept_settings=kept, changes=tuple(changes), warnings=loaded.warnings)

    def _read(self) -> tuple[Snapshot, Loaded, bytes]:
        try:
            snapshot = self._source.read()
            loaded = snapshot.load(self._registry)
            effective, _ = kept_settings(self.config.server, loaded.config.server)
            return snapshot, loaded, Certificate.read(effective).digest
        except ConfigError:
            raise
        except BaseException as bug:
            raise_unless_bug(bug)
            _log.error("the configuration could not be loaded", exc_info=bug)
            message = f"could not be loaded ({type(bug).__name__}): a mistake in llmproxy or in a plugin; see the log"
            raise ConfigError([Problem("", message)]) from bug

    async def _serve(self, snapshot: Snapshot) -> None:
        """
        Have all workers serve *snapshot*; ConfigError when one cannot, and then none does.

        A worker that takes the place of another meanwhile has begun with what was served before, and prepares too. One
        that is gone is no reason to refuse; two in a row are, since it may be the configuration that kills them.
        """
        self._attempt += 1
        attempt, data = self._attempt, snapshot.to_bytes()
        asked: list[Child] = []
        lost = set[str]()
        while new := [child for child in self.slots.children if child not in asked]:
            asked += new
            found = await asyncio.gather(*(child.prepare(attempt, data, self._prepare_s) for child in new))
            problems = _problems_of(found)
            for child in [it for it, said in zip(new, found, strict=True) if said is None]:
                if child.is_running or child.slot in lost or not await self.slots.successor(child, self._prepare_s):
                    problems.append(Problem("", f"worker {child.slot} ended, or was silent, while it was to prepare"))
                lost.add(child.slot)
            if self.slots.is_stopping:
                problems.append(Problem("", "the process is about to end"))
            if problems:
                for child in asked:
                    child.tell(messages.Abort(attempt))
                raise ConfigError(problems)
        # Nothing is awaited before all are told: who begins later begins with this.
        self.snapshot, self.number = snapshot, self.number + 1
        await asyncio.wait([child.commit(attempt, self.number) for child in asked], timeout=COMMIT_S)


def _problems_of(found: Sequence[list[Problem] | None]) -> list[Problem]:
    """What stands against serving, each reason once."""
    return list(dict.fromkeys(it for said in found for it in said or ()))
