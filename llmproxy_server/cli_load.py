"""What commands work on: the plugins, the environment, the configuration, and a gateway that opens no connection."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import attrs

from llmproxy_core.errors import ConfigError, Problem, UpstreamConnectError
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.llm import LLMClient, Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.plugins import Registry
from llmproxy_core.services import Services
from llmproxy_core.tasks import Tasks
from llmproxy_server.cli_exit import ExitCode, Refusal, problems_of
from llmproxy_server.loader import Loaded
from llmproxy_server.log_redact import Redaction
from llmproxy_server.logs import secrets_of
from llmproxy_server.source import Source, with_lines

T = TypeVar("T")


def load_registry() -> Registry:
    """All installed plugins; the command ends when two of them register the same name."""
    with problems_of("The set of installed plugins"):
        return Registry.load()


def load_configuration(
    file: str | None,
    registry: Registry,
    command_line: Mapping[str, object] | None = None,
    exit_code: ExitCode = ExitCode.CANNOT,
) -> Loaded:
    """The configuration in *file*, or the embedded default; the command ends with *exit_code* when it has problems."""
    return load_source(file, registry, command_line, exit_code)[1]


def load_source(
    file: str | None,
    registry: Registry,
    command_line: Mapping[str, object] | None = None,
    exit_code: ExitCode = ExitCode.CANNOT,
) -> tuple[Source, Loaded]:
    """As `load_configuration`, and where it can be read from again."""
    if file == "":  # an unset variable in a script; as a path it would be the working directory
        raise Refusal("the name of the configuration file is empty", exit_code)
    source = Source(None if file is None else Path(file), command_line or {}, dict(os.environ), Path.cwd())
    with problems_of(named(file), exit_code):
        return source, source.read().load(registry)


def named(file: str | None) -> str:
    """What messages call the configuration."""
    return "The embedded default" if file is None else file


class LookTransport:
    """The transport of a gateway that is looked at, not served from: it keeps what would be sent, and opens nothing."""

    def __init__(self) -> None:
        self.requests: list[UpstreamRequest] = []

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        self.requests.append(request)
        raise UpstreamConnectError("This gateway is looked at, not served from: it opens no connection")

    async def aclose(self) -> None:
        """Nothing is open."""


def as_told(problems: Sequence[Problem], loaded: Loaded) -> list[Problem]:
    """*problems* that a type's own factory has found, with their lines, and without the keys that it was given."""
    without_secrets = Redaction(secrets_of(loaded.config))
    return [attrs.evolve(it, message=without_secrets(it.message)) for it in with_lines(problems, loaded)]


@contextmanager
def _log_to_stderr(without_secrets: Redaction) -> Iterator[None]:
    """Inside, what is logged is for whoever reads this command's output: a plugin's bug with its traceback."""

    class Form(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return without_secrets(super().format(record))

    handler = logging.StreamHandler()
    handler.setFormatter(Form())
    log = logging.getLogger("llmproxy")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


Look = Callable[[Gateway, LookTransport], Awaitable[T]]


def look_at(loaded: Loaded, registry: Registry, look: Look[T]) -> T:
    """
    What *look* says of the gateway of *loaded*, which is closed afterwards.

    ConfigError, with lines, when a type's own factory refuses its table.
    """
    return asyncio.run(_look_at(loaded, registry, look))


async def _look_at(loaded: Loaded, registry: Registry, look: Look[T]) -> T:
    tasks, transport = Tasks(), LookTransport()

    def services(llm: Callable[[str], LLMClient]) -> Services:
        return Services(llm=llm, transport=lambda pool: transport, tasks=tasks)

    try:
        with _log_to_stderr(Redaction(secrets_of(loaded.config))):
            gateway = build(loaded.config, registry, services)
    except ConfigError as error:
        raise ConfigError(as_told(error.problems, loaded)) from error
    try:
        return await look(gateway, transport)
    finally:
        await gateway.aclose()
        await tasks.drain(0)
