"""Setting up the logs of a process."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

import attrs

from llmproxy_core.config import Config, ServerConfig
from llmproxy_core.secret import Secret
from llmproxy_server.log_line import JsonLines, TextLines

TRACE = 5
"""Below DEBUG: what the libraries say too."""
FLUSH_S = 0.05
_MOST_WAITING = 256  # lines
_LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


_Fields = tuple[float, str, int, Mapping[str, object]]
"""When it was added, the logger, the level and what is to be said."""


class BatchHandler(logging.Handler):
    """
    Writes lines to a stream, those of one moment together.

    Where an event loop runs, a line waits up to FLUSH_S for others; a warning or worse is written at once.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: list[str | _Fields] = []
        self._timer: asyncio.TimerHandle | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.append(self.format(record))
        except Exception:  # noqa: BLE001 - a log must not stop what it tells of; logging says it on stderr
            self.handleError(record)
        self._schedule(record.levelno)

    def add(self, logger: str, level: int, fields: Mapping[str, object]) -> None:
        """
        Write the line of a record of *fields*.

        It becomes a record with all of its batch, which takes a third of the time that it would take on its own.
        """
        self._waiting.append((time.time(), logger, level, fields))
        self._schedule(level)

    def _schedule(self, level: int) -> None:
        if level >= logging.WARNING or len(self._waiting) >= _MOST_WAITING:
            self.flush()
        elif self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
            except RuntimeError:  # no loop runs in this thread
                self.flush()

    def flush(self) -> None:
        """Write what waits. A stream that is gone (a closed pipe) is nobody's to read: the lines are dropped."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            waiting, self._waiting = self._waiting, []
            if lines := [each if isinstance(each, str) else self._line(*each) for each in waiting]:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            pass
        finally:
            self.release()

    def _line(self, created: float, logger: str, level: int, fields: Mapping[str, object]) -> str:
        record = logging.LogRecord(logger, level, "", 0, "exchange", (), None)
        vars(record).update(created=created, fields=fields)
        try:
            return self.format(record)
        except Exception:  # noqa: BLE001 - as in `emit`
            self.handleError(record)
            return ""


def configure(config: Config, stream: TextIO | None = None) -> BatchHandler:
    """Send the logs of this process to *stream* (standard error), as `[server.log]` says. Replaces what was set up."""
    out = sys.stderr if stream is None else stream
    log = config.server.log
    secrets = list(secrets_of(config))
    as_json = log.format == "json" or (log.format == "auto" and not out.isatty())
    handler = BatchHandler(out)
    handler.setFormatter(JsonLines(secrets) if as_json else TextLines(secrets))
    level = level_of(config.server)
    logging.addLevelName(TRACE, "TRACE")
    _collect_no_more_than_is_written()
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, BatchHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level if level <= TRACE else max(level, logging.WARNING))
    logging.getLogger("llmproxy").setLevel(level)
    logging.captureWarnings(True)
    return handler


def _collect_no_more_than_is_written() -> None:
    """Half of what a record costs (logging's HOWTO, section "Optimization")."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False


def level_of(server: ServerConfig) -> int:
    """The least level that is logged."""
    return _LEVELS["debug" if server.debug and server.log.level == "info" else server.log.level]


def secrets_of(value: object) -> Iterator[Secret]:
    """Every Secret anywhere in a configuration."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from secrets_of(each)
    elif isinstance(value, tuple | list | frozenset):
        for each in value:
            yield from secrets_of(each)
    elif attrs.has(kind := type(value)):
        for field in attrs.fields(kind):
            yield from secrets_of(getattr(value, field.name))
