"""How a command ends: its exit code, and what a person sees when it could not do its work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import IO, TYPE_CHECKING, Any

import click

from llmproxy_server.cli_terminal import complain, strong

if TYPE_CHECKING:
    from llmproxy_core.errors import Problem


class ExitCode(IntEnum):
    """What scripts can rely on; `docs/cli.md` is the reference."""

    OK = 0
    NOT_SO = 1
    """`check` found problems, or `explain` a request that nothing serves."""
    CANNOT = 2
    """The command line is wrong, or the configuration cannot be served."""
    INTERNAL = 70
    """Our bug (EX_SOFTWARE of sysexits.h)."""
    NO_OUTPUT = 74
    """What was to be printed cannot be written (EX_IOERR of sysexits.h)."""
    INTERRUPTED = 130
    """Ctrl-C, as a shell reports a process that SIGINT ended."""
    BROKEN_PIPE = 141
    """Whoever read the output is gone, as a shell reports a process that SIGPIPE ended."""


class Refusal(click.ClickException):
    """The command cannot do what was asked; *message* says why and what to do, in a sentence."""

    def __init__(self, message: str, code: ExitCode = ExitCode.CANNOT) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click reads it of the instance

    def show(self, file: IO[Any] | None = None) -> None:
        complain(f"{strong('llmproxy:', 'red')} {self.message}")


class ConfigProblems(Refusal):
    """Every problem of *name*: a file, or what stands for it."""

    def __init__(self, name: str, problems: Sequence[Problem], code: ExitCode) -> None:
        super().__init__(f"{name} has {counted(len(problems), 'problem')}", code)
        self.problems = problems

    def show(self, file: IO[Any] | None = None) -> None:
        complain(strong(f"{self.message}:", "red"))
        for problem in self.problems:
            complain(f"  {_words(problem)}")


def _words(problem: Problem) -> str:
    """*problem* with its place: line, column (which a syntax error has), and path."""
    line = None if problem.line is None else f"line {problem.line}"
    if line is not None and problem.column is not None:
        line += f", column {problem.column}"
    return ": ".join(filter(None, [line, problem.path, problem.message]))


@contextmanager
def problems_of(name: str, code: ExitCode = ExitCode.CANNOT) -> Iterator[None]:
    """A ConfigError inside ends the command with *code*, its problems said to be those of *name*."""
    from llmproxy_core.errors import ConfigError  # not needed by `--version` and `--help`

    try:
        yield
    except ConfigError as error:
        raise ConfigProblems(name, error.problems, code) from error


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "route"), counted(2, "route")
    ('1 route', '2 routes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
