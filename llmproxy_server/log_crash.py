"""The last words of a process that ends by an error which nobody handled: a line of the log, as any other."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import TracebackType

_log = logging.getLogger("llmproxy")
Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


class CrashHook:
    """In the place of `sys.excepthook`, whose traceback is no line, and may show a secret."""

    def __init__(self, before: Hook) -> None:
        self._before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, Exception):
            self._before(kind, error, trace)  # Ctrl-C: the interpreter's own word
            return
        _log.critical("the process ends: an error that nobody handled", exc_info=(kind, error, trace))


def install() -> None:
    """Have crashes told in the log. What was logged before is written out at exit in any case."""
    if not isinstance(sys.excepthook, CrashHook):
        sys.excepthook = CrashHook(sys.excepthook)
