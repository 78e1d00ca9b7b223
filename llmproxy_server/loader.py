"""From a file's path, the environment and the command line to a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import tomli

from llmproxy_core.config import Config, structure
from llmproxy_core.config_path import read_place
from llmproxy_core.config_problem import shown
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.plugins import Registry
from llmproxy_server.embedded import EMBEDDED, embedded_config
from llmproxy_server.environment import Overlaid, overlay
from llmproxy_server.settings import Settings, settings
from llmproxy_server.statement import Statements
from llmproxy_server.tls import tls_problem

MAX_FILE_BYTES = 1 << 20
_MOST_LINES = 100  # problems whose line is looked for: the rest of a file that is wrong throughout can do without


@attrs.frozen
class Loaded:
    """
    A configuration, what is doubtful about it, and where it came from.

    *warnings* name the plugins that could not be used too. *path* and *text* are None for the embedded default;
    *settings* has the origin of each setting of the server; *document* is what was read, the environment and the
    command line laid over it.
    """

    config: Config
    warnings: tuple[Problem, ...]
    path: Path | None
    text: str | None
    settings: Settings
    document: Mapping[str, object]


def load(
    path: Path | None, registry: Registry, env: Mapping[str, str], command_line: Mapping[str, object] | None = None
) -> Loaded:
    """
    The configuration in the file *path*; the embedded default when that is None.

    *command_line* maps dotted keys (`server.port`, `server.log.level`) to values; None is a flag not given.
    ConfigError with all problems, those of the file with their lines.
    """
    return load_text(path, None if path is None else read_text(path), registry, env, command_line or {})


def load_text(
    path: Path | None,
    text: str | None,
    registry: Registry,
    env: Mapping[str, str],
    command_line: Mapping[str, object],
    *,
    certificate: bool = True,
) -> Loaded:
    """
    As `load`, of a file that has been read: *text* is None for the embedded default.

    *certificate*: whether its files must be there and fit; for who speaks no TLS they need not.
    """
    document = embedded_config(env) if text is None else parse(text)
    laid = overlay(document if path is None else _beside(document, path), registry, env, command_line)
    try:
        config, warnings = structure(laid.document, registry, env)
    except ConfigError as error:
        unfit = _certificate_problems(*_named(laid.document)) if certificate else []
        found = _placed([*error.problems, *unfit], text, laid)
        raise ConfigError(laid.problems + found) from error
    unfit = _certificate_problems(config.server.tls_certificate, config.server.tls_key) if certificate else []
    problems = laid.problems + _placed(unfit, text, laid)
    if problems:
        raise ConfigError(problems)
    return Loaded(
        config=config,
        warnings=_broken_plugins(registry) + _placed(warnings, text, laid),
        path=path,
        text=text,
        settings=settings(config, document, laid.origins, EMBEDDED if path is None else path.name, laid.table_keys),
        document=laid.document,
    )


def read_text(path: Path) -> str:
    """The text of the file; ConfigError, with one clear problem, when it cannot be had."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError as error:
        raise _whole_file("is a directory, not a file") from error
    except FileNotFoundError as error:
        raise _whole_file("there is no such file") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise _whole_file(f"cannot be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise _whole_file(f"is longer than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise ConfigError([Problem("", "is not UTF-8, which TOML must be", line, column)]) from error


def parse(text: str) -> dict[str, object]:
    """The document that *text* holds; ConfigError with line and column when it is no TOML 1.1."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = f"is not valid TOML: {shown(error.msg)[1:-1]}"
        raise ConfigError([Problem("", message, error.lineno, error.colno)]) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else "a number has too many digits"
        raise _whole_file(f"is not valid TOML: {reason}") from error


def _whole_file(message: str) -> ConfigError:
    return ConfigError([Problem("", message)])


def _beside(document: dict[str, object], path: Path) -> dict[str, object]:
    """*document* with the files that it names taken as beside it, not beside where we were started."""
    server = document.get("server")
    if not isinstance(server, dict):
        return document
    files = {
        key: str(path.parent / server[key])
        for key in ("tls_certificate", "tls_key")
        if isinstance(server.get(key), str) and server[key]
    }
    return {**document, "server": {**server, **files}}


def _named(document: Mapping[str, object]) -> tuple[str | None, str | None]:
    """The certificate and the key that *document* names, whatever else is wrong in it."""
    server = document.get("server")
    found = [server.get(key) if isinstance(server, Mapping) else None for key in ("tls_certificate", "tls_key")]
    certificate, key = (it if isinstance(it, str) else None for it in found)
    return certificate, key


def _certificate_problems(certificate: str | None, key: str | None) -> list[Problem]:
    files = {"tls_certificate": certificate, "tls_key": key}
    missing = [
        Problem(f"server.{key}", f"there is no file {shown(file)}")
        for key, file in files.items()
        if file is not None and not Path(file).is_file()
    ]
    unfit = None if missing else tls_problem(certificate, key)
    return missing if unfit is None else [unfit]


def _broken_plugins(registry: Registry) -> tuple[Problem, ...]:
    """What is left out of everything: the operator is to know, though nothing in this configuration needs it."""
    return tuple(Problem("plugins", f"{it.origin} could not be used: {it.reason}") for it in registry.broken)


def _placed(problems: tuple[Problem, ...] | list[Problem], text: str | None, laid: Overlaid) -> tuple[Problem, ...]:
    """*problems* with their lines, in the file's order; of values from elsewhere, with where they come from."""
    statements: Statements | None = None
    placed: list[Problem] = []
    for problem in problems:
        origin = laid.origins.get(problem.path)
        if origin is not None:
            placed.append(attrs.evolve(problem, message=f"{problem.message} (from {_origin(origin)})"))
        elif text is None or problem.line is not None or len(placed) >= _MOST_LINES:
            placed.append(problem)
        else:
            statements = statements or Statements(text)
            placed.append(attrs.evolve(problem, line=statements.line(read_place(problem.path))))
    return tuple(sorted(placed, key=lambda it: (it.line is None, it.line or 0)))


def _origin(origin: str) -> str:
    return f"the {origin}" if " " in origin else f"{origin} in the environment"
