"""
Log records as lines: one JSON object each, or text for people.

What strangers send ends up in logs. So every character that could end a line, move a cursor or turn the direction of
writing is escaped, a line is at most 4 KiB, and the secrets of the configuration are cut out, whatever led them there.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from llmproxy_core.secret import Secret

MAX_LINE_BYTES = 4096
_MAX_VALUE = 1024  # characters
_MAX_EXCEPTION = 2400  # characters of a traceback; its end says most
_CUT = "…"
_SHORTEST_SECRET = 8  # characters; to cut a shorter one out of every word would make the log unreadable, not safer
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_LEVELS = {"WARNING": "warn", "CRITICAL": "error"}
_encode = msgspec.json.Encoder(order=None).encode


def escape(text: str) -> str:
    """*text* on one line, nothing in it that a terminal acts on."""
    return _HARMFUL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + _CUT


def _bounded(line: str) -> str:
    data = line.encode("utf-8", "replace")
    if len(data) <= MAX_LINE_BYTES:
        return line
    return data[: MAX_LINE_BYTES - 3].decode("utf-8", "ignore") + _CUT


class _Lines(logging.Formatter):
    """What both forms share."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        super().__init__()
        values = (secret.reveal() for secret in secrets)
        self._secrets = tuple(value for value in values if len(value) >= _SHORTEST_SECRET)

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text

    def _text(self, value: object, most: int = _MAX_VALUE) -> str:
        """*value* without secrets, then cut: the other way round half a secret could stay."""
        return _cut(self._redact(str(value)), most)


class JsonLines(_Lines):
    """One JSON object a line."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        super().__init__(secrets)
        self._needles = tuple({text for secret in self._secrets for text in (secret, json.dumps(secret)[1:-1])})
        self._second = -1
        self._prefix = ""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        line: dict[str, object] = {
            "time": self._time(record.created),
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if not record.exc_info:
            # As it is, if there is nothing to hide, to cut or to escape in it: nearly always.
            try:
                data = _encode(line)
            except (TypeError, UnicodeEncodeError, msgspec.MsgspecError):
                data = b"\xff"
            if len(data) <= MAX_LINE_BYTES and data.isascii() and b"\x7f" not in data:
                text = data.decode()
                if not any(needle in text for needle in self._needles):
                    return text
        line["message"] = self._text(line["message"])
        for name, value in fields.items():
            line[name] = self._value(value)
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = self._redact(_trace(record.exc_info[1]))[-_MAX_EXCEPTION:]
        return self._encoded(line)

    def _time(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._prefix}{int((created - second) * 1000):03}Z"

    def _encoded(self, line: dict[str, object]) -> str:
        text = _json(line)
        if len(text) > MAX_LINE_BYTES // 4 and len(text.encode()) > MAX_LINE_BYTES:
            kept = {name: _cut(value, 128) if isinstance(value, str) else value for name, value in line.items()}
            text = _json({**kept, "truncated": True})
        if len(text.encode()) > MAX_LINE_BYTES:
            kept = {name: _cut(str(line[name]), 128) for name in ("time", "level", "logger", "message")}
            text = _json({**kept, "truncated": True})
        return text

    def _value(self, value: object) -> object:
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, list | tuple):
            return [self._value(each) for each in value[:16]]
        return self._text(value)


def _json(line: Mapping[str, object]) -> str:
    try:
        text = _encode(line).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError):  # surrogates
        return json.dumps(line)
    return text if text.isascii() else _HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class TextLines(_Lines):
    """A line for people; a traceback follows on lines of its own, which are set in."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        said = _summary(fields) if "status" in fields else self._text(record.getMessage())
        rest = [f"{name}={self._text(value)}" for name, value in fields.items() if name not in _IN_SUMMARY]
        words = [_time(record).strftime("%H:%M:%S.%f")[:-3], f"{_level(record):5}", said, *rest]
        line = _bounded(escape(self._redact(" ".join(words))))
        if record.exc_info and record.exc_info[1] is not None:
            trace = self._redact(_trace(record.exc_info[1]))
            lines = trace.splitlines()[-60:]
            line = "\n".join([line, *(_bounded("    " + escape(each)) for each in lines)])
        return line


_IN_SUMMARY = frozenset({"method", "path", "status", "duration_ms", "usage_source"})


def _summary(fields: Mapping[str, object]) -> str:
    path = _cut(str(fields.get("path")), _MAX_VALUE)
    return f"{fields.get('method')} {path} {fields['status']} {fields.get('duration_ms')} ms"


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    """What was logged as `extra={"fields": …}`."""
    found = getattr(record, "fields", None)
    return found if isinstance(found, Mapping) else {}


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelname) or record.levelname.lower()


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
