"""Setting up the logs of a process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TextIO

import attrs

from llmproxy_core.config import Config, LogConfig, ServerConfig
from llmproxy_core.errors import raise_unless_bug
from llmproxy_core.secret import Secret
from llmproxy_server import log_crash, log_events
from llmproxy_server.log_line import ENVELOPE, TRACE, Content, Entry, Fields, JsonLines, Lines
from llmproxy_server.log_output import Output
from llmproxy_server.log_redact import Redaction
from llmproxy_server.log_text import TextLines
from llmproxy_server.log_writer import FLUSH_S, LineWriter

_HELD = 64 << 10  # characters of a text that may wait; lines hold far less
_SECRETS_BEFORE = 256
"""So many secrets of earlier configurations are still cut out: calls that began under these still run."""
_LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


class BatchHandler(logging.Handler):
    """
    Hands what is logged to the thread that writes it, lines of one moment together; a warning or worse at once.

    It never waits for the output, and never raises.
    """

    def __init__(self, stream: TextIO, *, warm_up: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.stream = stream
        self.secrets: tuple[Secret, ...] = ()
        """Those that are cut out."""
        self._redact = Redaction()
        self._output = Output(stream)
        self._writer = LineWriter(self._output, JsonLines(), warm_up=warm_up)

    @property
    def dropped(self) -> int:
        """How many lines were lost since the process began: the output took them too slowly, or not at all."""
        return self._writer.dropped

    def form(self, lines: Lines, redact: Redaction, *, long_lines: bool = False) -> None:
        """Write *lines* from now on, also of what waits. *long_lines*: they may be longer than a pipe's piece."""
        self._redact = redact
        self._output.long_lines = long_lines
        self._writer.lines = lines

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """*loop* runs here, and begins to serve: have done now what takes time; it makes the lines of its calls."""
        self._writer.start()
        self._writer.follow(loop)

    def served(self) -> None:
        """The loop of `serve` makes no lines any more."""
        self._writer.follow(None)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry = self._entry(record)
        except BaseException as bug:  # noqa: BLE001 - a log must not stop what it tells of
            raise_unless_bug(bug)
            fields = {"error_type": type(bug).__name__}
            entry = Entry(record.created, record.name, logging.ERROR, "a log line could not be made", fields)
        self._writer.put(entry)

    def _entry(self, record: logging.LogRecord) -> Entry:
        """*record* as it is now: what it was made of may change before it is written."""
        message = self._held(record.getMessage())
        exception = ""
        if record.exc_info and record.exc_info[1] is not None:
            exception = "".join(traceback.format_exception(record.exc_info[1]))
            exception = exception if len(exception) <= _HELD else self._redact.tail(exception, _HELD)
        found = getattr(record, "fields", None)
        fields = {}
        if isinstance(found, Mapping):
            fields = {_free(name): self._kept(value) for name, value in found.items()}
        content = getattr(record, "content", None)
        size = 512 + len(message) + len(exception) + sum(len(it) for it in fields.values() if isinstance(it, str))
        return Entry(
            record.created,
            record.name,
            record.levelno,
            message,
            fields,
            exception=exception,
            content=content if callable(content) else None,
            size=size + getattr(record, "content_bytes", 0),
        )

    def _kept(self, value: object) -> object:
        """*value*, not to change any more."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._held(value)
        if isinstance(value, list | tuple):
            return [self._kept(each) for each in value[:_MOST_ITEMS]]
        if isinstance(value, Mapping):
            return {str(name): self._kept(each) for name, each in list(value.items())[:_MOST_ITEMS]}
        return self._held(str(value))

    def _held(self, text: str) -> str:
        return text if len(text) <= _HELD else self._redact(text)[:_HELD]

    def add(
        self,
        logger: str,
        level: int,
        fields: Fields,
        *,
        more: Mapping[str, object] | None = None,
        content: Content | None = None,
        size: int = 512,
    ) -> None:
        """
        Write a line of *fields* and *more*, without a record: the quick way, for the lines of calls.

        What gives *content* is called when the line is written, in another thread; *size* is about how many bytes of
        memory all of it holds until then.
        """
        self._writer.put(Entry(time.time(), logger, level, "exchange", fields, more=more, content=content, size=size))

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait until what was logged is written, as `LineWriter.flush` does. `logging` does so at exit."""
        self._writer.flush(timeout_s)

    def close(self) -> None:
        self._writer.close()
        super().close()


_MOST_ITEMS = 64


def _free(name: object) -> str:
    """*name*, unless it is one that every line has."""
    return f"{name}_" if name in ENVELOPE else str(name)


def configure(config: Config, stream: TextIO | None = None) -> BatchHandler:
    """
    Send the logs of this process to *stream* (standard error), as `[server.log]` says.

    May be called again at any time, as a reload does: what waits is written in the new form, and without the secrets
    of both configurations.
    """
    out = sys.stderr if stream is None else stream
    log = config.server.log
    handler, before = _handler(out, in_process=stream is None)
    now = list(dict.fromkeys(secrets_of(config)))
    handler.secrets = (*now, *[secret for secret in before if secret not in now][:_SECRETS_BEFORE])
    redact = Redaction(handler.secrets)
    level = level_of(config.server)
    handler.form(_form(log, out, redact), redact, long_lines=log.log_content or level <= TRACE)
    _set_levels(level)
    return handler


def _handler(out: TextIO, *, in_process: bool) -> tuple[BatchHandler, tuple[Secret, ...]]:
    """The handler that writes to *out*, in the place of any other of ours; and which secrets were known so far."""
    root = logging.getLogger()
    found = [it for it in root.handlers if isinstance(it, BatchHandler)]
    before = tuple(dict.fromkeys(secret for it in found for secret in it.secrets))
    if found and found[-1].stream is out:
        return found[-1], before
    handler = BatchHandler(out, warm_up=log_events.warm_up if in_process else None)
    root.addHandler(handler)
    for old in found:
        root.removeHandler(old)
        old.close()
    if in_process:
        log_crash.install()
    logging.captureWarnings(True)
    _collect_no_more_than_is_written()
    return handler, before


def _form(log: LogConfig, out: TextIO, redact: Redaction) -> Lines:
    terminal = _is_terminal(out)
    if log.format == "json" or (log.format == "auto" and not terminal):
        return JsonLines(redact, max_content_bytes=log.max_content_bytes)
    plain = not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"  # no-color.org
    return TextLines(redact, colour=not plain, max_content_bytes=log.max_content_bytes)


def _is_terminal(out: TextIO) -> bool:
    try:
        return out.isatty()
    except ValueError:  # it is closed
        return False


def _set_levels(level: int) -> None:
    logging.addLevelName(TRACE, "TRACE")
    logging.getLogger().setLevel(level if level <= TRACE else max(level, logging.WARNING))
    logging.getLogger("llmproxy").setLevel(level)


def _collect_no_more_than_is_written() -> None:
    """Half of what a record costs (logging's HOWTO, section "Optimization")."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False


def handlers() -> Iterable[BatchHandler]:
    """Those that write the logs of this process."""
    return [it for it in logging.getLogger().handlers if isinstance(it, BatchHandler)]


def flush(timeout_s: float = FLUSH_S) -> None:
    """Write out what was logged, for those who are about to end the process in a way that runs nothing at exit."""
    for handler in handlers():
        handler.flush(timeout_s)


def dropped() -> int:
    """How many lines of this process were lost so far."""
    return sum(handler.dropped for handler in handlers())


def content_bytes(server: ServerConfig) -> int:
    """
    How many bytes of an answer are to be kept for its line; 0: none.
    """
    log = server.log
    if not log.log_content and level_of(server) > TRACE:
        return 0
    return kept_bytes(log.max_content_bytes)


def kept_bytes(max_content_bytes: int) -> int:
    """How many bytes of an answer are to be kept for so many of its text: a stream takes some sixty for each."""
    return min(max(64 * max_content_bytes, 64 << 10), 4 << 20)


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
