"""What the tests of the logs share: entries, the process's logging kept apart, and lines read back."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmproxy_core.config import Config, LogConfig, ServerConfig
from llmproxy_core.secret import Secret
from llmproxy_server.log_line import Entry
from llmproxy_server.log_redact import Redaction
from llmproxy_server.logs import BatchHandler

HOSTILE = [
    "a\nb",
    "a\r\nb",
    "\x1b[2J\x1b[31mred",
    "\x9b31m",
    "a\u2028b\u2029c\x85d",
    "\u202egnp.exe",
    "\x00\x07\x08\x7f",
    "\ud800",
    "\U000e0041\U000e007f\ufff9\xad",
    "x" * 1_000_000,
    "ü" * 100_000,
    "\x01" * 100_000,
    '{"level":"error"}\n{"level":"info"}',
]
"""What strangers may send."""


def entry(
    message: str = "said", fields: dict[str, object] | None = None, *, exception: str = "", **content: str
) -> Entry:
    return Entry(
        1.5,
        "llmproxy.x",
        logging.INFO,
        message,
        fields or {},
        exception=exception,
        content=(lambda: content) if content else None,
    )


def redacting(*secrets: str) -> Redaction:
    return Redaction([Secret(value) for value in secrets])


def config_with(**keys: Any) -> Config:
    return Config(server=ServerConfig(log=LogConfig(**keys)))


@contextmanager
def logging_restored() -> Iterator[None]:
    """The process's logging, structlog apart, as it was before."""
    root, ours = logging.getLogger(), logging.getLogger("llmproxy")
    before = (list(root.handlers), root.level, ours.level)
    shown = warnings.showwarning
    try:
        yield
    finally:
        for handler in list(root.handlers):
            if handler not in before[0]:
                root.removeHandler(handler)
                handler.close()
        for handler in before[0]:
            root.addHandler(handler)
        root.setLevel(before[1])
        ours.setLevel(before[2])
        logging.captureWarnings(False)
        warnings.showwarning = shown


def read(out: io.StringIO, handler: BatchHandler) -> list[dict[str, Any]]:
    """The JSON lines that were written once all is."""
    handler.flush(20)
    return [json.loads(line) for line in out.getvalue().splitlines()]
