"""
What the server says that is not per call: structlog's events, on the way of all other records.

structlog takes a tenth of a second to import, so it is imported with the first event, or beforehand in the thread that
writes the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

_OF_A_RECORD = ("exc_info", "stack_info", "stacklevel")


class Events:
    """
    A logger of events: a sentence that is always the same, and its values as keywords.

    Its events are structlog's, and records of the standard logger *name*.
    """

    __slots__ = ("_logger", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, **fields: object) -> None:
        self._say("debug", logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._say("info", logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._say("warning", logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """`exc_info=` takes the exception that is its cause."""
        self._say("error", logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """An error, with the exception that is being handled."""
        self._say("error", logging.ERROR, event, {"exc_info": True, **fields})

    def _say(self, method: str, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            getattr(_structured(self._logger).bind(**fields), method)(event)


def get_logger(name: str = "llmproxy") -> Events:
    return Events(name)


def warm_up() -> None:
    """Import structlog, and let also those plugins that use it themselves write to this log."""
    import structlog

    if not structlog.is_configured():
        structlog.configure(
            processors=_processors(),
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )


def _structured(logger: logging.Logger) -> Any:
    import structlog

    return structlog.wrap_logger(logger, processors=_processors(), wrapper_class=structlog.stdlib.BoundLogger)


def _processors() -> list[Any]:
    import structlog

    return [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _as_record,
    ]


def _as_record(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, object]]:  # structlog: what the standard logger's method is called with
    """The last step: the event is the record's message, its values are the record's `fields`."""
    told = {name: event.pop(name) for name in _OF_A_RECORD if name in event}
    message = str(event.pop("event", ""))
    return (message,), {**told, "extra": {"fields": dict(event)}}
