"""Reloading: another configuration in the place of the one that is served, or every reason why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import attrs
import msgspec

from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_server.aside import aside
from llmproxy_server.difference import written
from llmproxy_server.generation import KeptSetting
from llmproxy_server.health import Health
from llmproxy_server.log_events import get_logger
from llmproxy_server.metrics.upkeep import Result

_log = get_logger()
PATH = "/api/reload"
READ_S = 30.0
"""How long reading the files of a configuration may take."""
T = TypeVar("T")
_MOST_TOLD = 20
"""Changes that a line of the log names."""


@attrs.frozen
class Reloaded:
    """
    What a reload came to.

    *generation* counts the configurations that this process has served, the first is 1. *unchanged*: the configuration
    is the one that is served already. *busy*: nothing was looked at, since the process is about to end.
    """

    ok: bool
    generation: int
    problems: tuple[Problem, ...] = ()
    unchanged: bool = False
    kept_settings: tuple[KeptSetting, ...] = ()
    changes: tuple[str, ...] = ()
    """In words, a line each."""
    warnings: tuple[Problem, ...] = ()
    busy: bool = False


class Reloader(Protocol):
    """Whoever can reload. *cause* is for the log: "SIGHUP", "file" or "admin"."""

    async def reload(self, cause: str) -> Reloaded:
        """
        Reload, once the reloads are over that were asked for before.

        A bad configuration changes nothing, and is said in what is given; nothing is raised.
        """
        ...

    def stop(self) -> None:
        """The process is about to end: nothing is reloaded any more."""
        ...


async def read_aside(read: Callable[[], T]) -> T:
    """What *read* reads of the files of a configuration, while calls are served; ConfigError when it takes too long."""
    try:
        return await aside(read, timeout_s=READ_S)
    except TimeoutError:
        raise ConfigError([Problem("", f"it could not be read within {READ_S:g} s")]) from None


def result_of(done: Reloaded) -> Result:
    """What it is counted as."""
    if not done.ok:
        return "failed"
    return "unchanged" if done.unchanged else "ok"


def tell_health(health: Health, done: Reloaded) -> None:
    """A configuration that is not served is a reason not to be well, until one is."""
    if done.ok:
        health.clear("reload")
    else:
        health.complain("reload", "reload_failed", "the last reload failed: the log has its problems")


def about_to_end(number: int, cause: str) -> Reloaded:
    """A reload for *cause* is refused; *number* is the generation that is served."""
    _log.info("not reloaded: the process is about to end", cause=cause)
    return Reloaded(False, number, (Problem("", "the process is about to end"),), busy=True)


def report(done: Reloaded, cause: str, name: str) -> None:
    """Say in the log what became of a reload of *name*, for *cause*."""
    if not done.ok:
        _log.error(
            "not reloaded: what was served before goes on",
            cause=cause,
            configuration=name,
            generation=done.generation,
            problems=len(done.problems),
        )
        for problem in done.problems:
            _log.error("a problem of the configuration", configuration=name, **problem_fields(problem, "problem"))
        return
    for warning in done.warnings:
        _log.warning("a warning about the configuration", configuration=name, **problem_fields(warning, "warning"))
    if done.unchanged:
        _log.info("reloaded: unchanged", cause=cause, configuration=name, generation=done.generation)
    else:
        changes = list(done.changes[:_MOST_TOLD])
        _log.info("reloaded", cause=cause, configuration=name, generation=done.generation, changes=changes)
    for it in done.kept_settings:
        _log.warning(
            "a setting changes only by a restart", setting=it.name, running=written(it.running), given=written(it.given)
        )


# -- the admin call --------------------------------------------------------------------------------------------------


def reload_endpoint(reloader: Reloader) -> Endpoint:
    """`POST /api/reload`: 200, 422 with every problem, or 409 when the process is about to end."""

    async def handle(request: EndpointRequest) -> EndpointReply:
        done = await reloader.reload("admin")
        status = 200 if done.ok else 409 if done.busy else 422
        return EndpointReply(msgspec.json.encode(_said(done)), status=status)

    return Endpoint("POST", PATH, handle, local_only=True)


def _said(done: Reloaded) -> dict[str, object]:
    said: dict[str, object] = {"reloaded": done.ok, "generation": done.generation}
    if not done.ok:
        return {**said, "problems": [problem_fields(it) for it in done.problems]}
    return {
        **said,
        "unchanged": done.unchanged,
        "changes": done.changes,
        "needs_restart": [it.name for it in done.kept_settings],
        "warnings": [problem_fields(it) for it in done.warnings],
    }


def problem_fields(problem: Problem, what: str = "message") -> dict[str, object]:
    """What is known of *problem*; *what* is the name of its text."""
    said = {"line": problem.line, "column": problem.column, "path": problem.path, what: problem.message}
    return {key: value for key, value in said.items() if value is not None}
