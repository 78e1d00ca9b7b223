"""The last words of a process that ends by an error which nobody handled: a line of the log, as any other."""

from __future__ import annotations

import logging
import sys
import threading
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


def _tell_of_thread(ended: threading.ExceptHookArgs) -> None:
    """In the place of `threading.excepthook`, whose traceback would stand in the middle of our lines."""
    if ended.exc_type is not SystemExit:
        cause = (ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback)
        _log.error("a thread ended: an error that nobody handled", exc_info=cause)


def install() -> None:
    """Have crashes told in the log. What was logged before is written out at exit in any case."""
    if not isinstance(sys.excepthook, CrashHook):
        sys.excepthook = CrashHook(sys.excepthook)
    if threading.excepthook is threading.__excepthook__:  # who put in another one wants to see them
        threading.excepthook = _tell_of_thread
