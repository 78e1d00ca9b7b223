"""A Reloaded as another process reads it."""

from __future__ import annotations

from typing import Any

from llmproxy_core.errors import Problem
from llmproxy_server.generation import KeptSetting
from llmproxy_server.reload import Reloaded


def said_of(done: Reloaded) -> dict[str, Any]:
    """What *done* says, of settings their names alone: values may be anything."""
    return {
        "ok": done.ok,
        "generation": done.generation,
        "unchanged": done.unchanged,
        "busy": done.busy,
        "problems": [_said(it) for it in done.problems],
        "warnings": [_said(it) for it in done.warnings],
        "changes": list(done.changes),
        "kept": [it.name for it in done.kept_settings],
    }


def read_reloaded(said: dict[str, Any]) -> Reloaded:
    return Reloaded(
        said["ok"],
        said["generation"],
        tuple(Problem(*it) for it in said["problems"]),
        unchanged=said["unchanged"],
        kept_settings=tuple(KeptSetting(name, None, None) for name in said["kept"]),
        changes=tuple(said["changes"]),
        warnings=tuple(Problem(*it) for it in said["warnings"]),
        busy=said["busy"],
    )


def _said(problem: Problem) -> tuple[str, str, int | None, int | None]:
    return problem.path, problem.message, problem.line, problem.column
