"""Where a configuration is read from: again at each reload, and the same for every worker."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from llmproxy_core.config_path import read_place
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.plugins import Registry
from llmproxy_server.embedded import EMBEDDED
from llmproxy_server.environment import DOTENV, read_environment
from llmproxy_server.loader import Loaded, load_text, read_text
from llmproxy_server.statement import Statements

_MOST_READINGS = 5


@attrs.frozen
class Snapshot:
    """
    One reading: what `load` gives depends on nothing else, so that all who load it have the same configuration.

    *text* is None for the embedded default. It and *env* may hold keys: they are not shown. *problems* are `.env`'s.
    """

    path: Path | None
    text: str | None = attrs.field(repr=False)
    env: Mapping[str, str] = attrs.field(repr=False)
    command_line: Mapping[str, object]
    problems: tuple[Problem, ...] = ()

    def load(self, registry: Registry, *, certificate: bool = True) -> Loaded:
        """
        The configuration; ConfigError with all its problems.

        Opens no file but those of the certificate; without *certificate* none.
        """
        found = list(self.problems)
        try:
            loaded = load_text(self.path, self.text, registry, self.env, self.command_line, certificate=certificate)
        except ConfigError as error:
            raise ConfigError([*found, *error.problems]) from error
        if found:
            raise ConfigError(found)
        return loaded

    def to_bytes(self) -> bytes:
        """JSON, for another process, of what can be loaded. It holds the environment: for private channels only."""
        path = None if self.path is None else str(self.path)
        said = {"path": path, "text": self.text, "env": dict(self.env), "command_line": dict(self.command_line)}
        return json.dumps(said).encode()  # not msgspec's: a variable need not be UTF-8

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        said = json.loads(data)
        path = None if said["path"] is None else Path(said["path"])
        return cls(path, said["text"], said["env"], said["command_line"])


Look = Mapping[Path, tuple[int, ...] | None]
"""What tells one content of files from another; None: there is no such file."""


def look(files: Iterable[Path]) -> Look:
    """How *files* are now. Links are followed."""
    return {path: _signature(path) for path in files}


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@attrs.define
class Source:
    """
    The file *path* (None: the embedded default), with the `.env` of *directory*, *environ* and the command line.

    *environ* and *command_line* are those that the process began with; the files are read anew each time.
    """

    path: Path | None
    command_line: Mapping[str, object]
    environ: Mapping[str, str] = attrs.field(repr=False)
    directory: Path
    seen: Look = attrs.field(factory=dict, init=False)
    """How the files were right before they were read last: what is changed after that, has not been read."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return EMBEDDED if self.path is None else str(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """What a reading depends on, also where it is not there."""
        dotenv = self.directory / DOTENV
        return (dotenv,) if self.path is None else (self.path, dotenv)

    def read(self) -> Snapshot:
        """
        The files as they are now. ConfigError when they cannot be read.

        They are read twice: what somebody is about to write shows as two readings that are not the same.
        """
        self.seen = look(self.files)
        found = self._read()
        for _ in range(_MOST_READINGS):
            seen = look(self.files)
            before, found = found, self._read()
            if found == before:
                break
            self.seen = seen
        return found

    def _read(self) -> Snapshot:
        said = read_environment(self.environ, self.directory)
        try:
            text = None if self.path is None else read_text(self.path)
        except ConfigError as error:
            raise ConfigError([*said.problems, *error.problems]) from error
        return Snapshot(self.path, text, said.variables, self.command_line, said.problems)


def with_lines(problems: Iterable[Problem], loaded: Loaded) -> list[Problem]:
    """*problems* with the lines of the file where their keys are."""
    if loaded.text is None:
        return list(problems)
    statements = Statements(loaded.text)
    return [attrs.evolve(it, line=statements.line(read_place(it.path))) for it in problems]
