"""
What is to be logged, as one JSON object a line.

What strangers send ends up in logs. So every character that could end a line, move a cursor or turn the direction of
writing is escaped, a line is at most 4 KiB with its line feed (and what was asked for of content more), and the secrets
of the configuration are cut out, whatever led them there. Values are cut, never the encoded line: it stays JSON.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from llmproxy_core.node import record
from llmproxy_server.log_redact import Redaction

TRACE = 5
"""Below DEBUG: bodies, and what the libraries say too."""
ENVELOPE = frozenset({"time", "level", "logger", "message", "exception", "truncated", "content_cut", "content_dropped"})
"""What every line of the log may have; nobody's values can take these names."""
MAX_LINE_BYTES = 4095
"""Without its line feed: with it, the most that a pipe takes in one piece (PIPE_BUF)."""
MAX_VALUE = 1024  # characters
MAX_EXCEPTION = 2400  # characters of a traceback; its end says most
CUT = "…"
_MOST_ITEMS = 16
_MOST_TEXT = 64 << 10  # characters of one line's values, before they are encoded and cut
_LARGEST = 1 << 63
_LEVELS = {TRACE: "trace", 10: "debug", 20: "info", 30: "warn", 40: "error", 50: "error"}
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_encode = msgspec.json.Encoder(order=None).encode

Fields = Mapping[str, object] | msgspec.Struct
"""Of a struct nothing may change until the line is written, nor may it keep anything large in memory."""
Content = Callable[[], Mapping[str, str]]
"""Gives texts of their own bound by name, when the line is written."""


@record(eq=False, repr=False)
class Entry:
    """One thing to be said. Made per line; written out later, and in another thread."""

    created: float
    """Seconds since the epoch."""
    logger: str
    level: int
    message: str
    fields: Fields
    more: Mapping[str, object] | None = None
    """Further fields."""
    exception: str = ""
    content: Content | None = None
    size: int = 512
    """About how many bytes of memory it takes until it is written."""


class Lines(Protocol):
    """A form of the log. No line feed ends what it gives."""

    def line(self, entry: Entry) -> str: ...

    def quickly(self, entries: Sequence[Entry]) -> list[bytes] | None:
        """The lines of *entries*, line feeds included, where they are easily made; None: make them one by one."""
        ...


def level_name(level: int) -> str:
    return _LEVELS.get(level) or logging.getLevelName(level).lower()


def told(fields: Fields, more: Mapping[str, object] | None) -> Mapping[str, object]:
    """All fields of an entry, by their names."""
    found: Mapping[str, object] = msgspec.to_builtins(fields) if isinstance(fields, msgspec.Struct) else fields
    return {**found, **more} if more else found


def escape(text: str) -> str:
    """*text* on one line, nothing in it that a terminal acts on."""
    return _HARMFUL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def cut(text: str, most: int) -> str:
    """At most *most* characters of *text*, marked when there were more."""
    return text if len(text) <= most else text[: most - 1] + CUT


class Shortened:
    """The values of one line, without secrets, none of them too long, nor all of them together."""

    def __init__(self, redact: Redaction) -> None:
        self._redact = redact
        self.room = _MOST_TEXT
        """How many characters there still are."""

    def text(self, value: object) -> str:
        """*value* without secrets, then cut: the other way round half a secret could stay."""
        text = cut(self._redact(str(value)), MAX_VALUE)
        self.room = max(0, self.room - len(text) - 8)
        return text

    def value(self, value: object, depth: int = 3) -> object:
        """*value* as JSON can say it; a mark stands for the items of a list that are left out."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float) and abs(value) < _LARGEST:  # no NaN, and what any reader of JSON takes
            return value
        if depth and isinstance(value, list | tuple):
            kept = [self.value(each, depth - 1) for each in value[:_MOST_ITEMS] if self.room]
            return kept if len(kept) == len(value) else [*kept, CUT]
        if depth and isinstance(value, Mapping):
            pairs = list(value.items())[:_MOST_ITEMS]
            return {self.text(name): self.value(each, depth - 1) for name, each in pairs if self.room}
        return self.text(value) if isinstance(value, str) or depth else cut(self.text(type(value).__name__), 64)


def _weighed(values: Iterable[object], room: int) -> int:
    """
    What is left of *room* bytes when *values* are written in them, about; less than 0 when they are too long.

    Structs are not looked at: their makers keep them short.
    """
    for value in values:
        if isinstance(value, str):
            room -= len(value)
        elif isinstance(value, dict):
            room = _weighed(value.values(), room - 4 * len(value))
        elif isinstance(value, list | tuple):
            room = _weighed(value, room - len(value))
        if room < 0:
            break
    return room


class JsonLines:
    """One JSON object a line."""

    def __init__(self, redact: Redaction | None = None, *, max_content_bytes: int = 8 << 10) -> None:
        """*max_content_bytes*: of each text of an entry's content, as it is encoded."""
        self._redact = redact or Redaction()
        self._max_content = max_content_bytes
        self._second = -1
        self._prefix = ""

    def quickly(self, entries: Sequence[Entry]) -> list[bytes] | None:
        """Those of calls: hardly ever is there anything to hide, cut or escape, which is looked for in all at once."""
        made: list[bytes] = []
        same: tuple[int, int, str, str] | None = None
        begin = b""
        try:
            for entry in entries:
                fields = entry.fields
                if not isinstance(fields, msgspec.Struct) or entry.more or entry.content or entry.exception:
                    return None
                kind = (int(entry.created * 1000), entry.level, entry.logger, entry.message)
                if kind != same:  # there are many in a millisecond, when there are many
                    same, begin = kind, self._begin(entry)
                made.append(begin + _encode(fields)[1:] + b"\n")
        except (TypeError, UnicodeEncodeError, OverflowError, msgspec.MsgspecError):
            return None
        whole = b"".join(made)
        if not whole.isascii() or b"\x7f" in whole or max(map(len, made)) > MAX_LINE_BYTES + 1:
            return None
        return None if self._redact.found_in(whole.decode("ascii")) else made

    def _begin(self, entry: Entry) -> bytes:
        """The envelope of a line whose message and logger are words of ours."""
        said = f'"level":"{level_name(entry.level)}","logger":"{entry.logger}","message":"{entry.message}"'
        return f'{{"time":"{self._time(entry.created)}",{said},'.encode()

    def line(self, entry: Entry) -> str:
        text = self._as_it_is(entry) or self._mended(entry)
        return text if entry.content is None else self._with_content(text, entry.content())

    def _as_it_is(self, entry: Entry) -> str | None:
        """If there is nothing to hide, to cut or to escape in it: nearly always."""
        fields, more = entry.fields, entry.more
        if entry.exception or _weighed((fields, more, entry.message), MAX_LINE_BYTES) < 0:
            return None
        try:
            parts = [_encode(self._envelope(entry)), _encode(fields)]
            if more:
                parts.append(_encode(more))
        except (TypeError, UnicodeEncodeError, OverflowError, msgspec.MsgspecError):
            return None
        data = b"{%b}" % b",".join([part[1:-1] for part in parts if len(part) > 2])
        if len(data) > MAX_LINE_BYTES or not data.isascii() or b"\x7f" in data:
            return None
        text = data.decode("ascii")
        return None if self._redact.found_in(text) else text

    def _envelope(self, entry: Entry) -> dict[str, str]:
        time, level = self._time(entry.created), level_name(entry.level)
        return {"time": time, "level": level, "logger": entry.logger, "message": entry.message}

    def _mended(self, entry: Entry) -> str:
        """With what must not be seen cut out, what is too long cut short, what is harmful escaped."""
        shorten = Shortened(self._redact)
        line: dict[str, object] = {name: shorten.text(value) for name, value in self._envelope(entry).items()}
        for name, value in told(entry.fields, entry.more).items():
            if not shorten.room:
                line["truncated"] = True
                break
            line[shorten.text(name)] = shorten.value(value)
        if entry.exception:
            line["exception"] = self._redact(entry.exception)[-MAX_EXCEPTION:]
        return self._bounded(line)

    def _time(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._prefix}{int((created - second) * 1000):03}Z"

    def _bounded(self, line: dict[str, object]) -> str:
        """*line* within the bound: else with its texts cut short, and without those of its values that are too long."""
        text = encoded(line)
        if len(text) * 4 <= MAX_LINE_BYTES or len(text.encode()) <= MAX_LINE_BYTES:
            return text
        parts, room = ['"truncated":true'], MAX_LINE_BYTES - len('{"truncated":true}')
        for name, value in line.items():
            part = encoded({cut(name, 128): _shorter(value, 128)})[1:-1]
            if (size := len(part.encode()) + 1) <= room:
                parts.insert(-1, part)
                room -= size
        return "{" + ",".join(parts) + "}"

    def _with_content(self, line: str, content: Mapping[str, str]) -> str:
        """*line* with *content* behind its own members, each text within its bound."""
        parts, shortened = [line[:-1]], []
        for name, text in content.items():
            kept, whole = fitting(self._redact, text, self._max_content)
            parts.append(f"{encoded(name)}:{encoded(kept)}")
            if not whole:
                shortened.append(name)
        if shortened:
            parts.append(f'"content_cut":{encoded(shortened)}')
        return ",".join(parts) + "}"


def fitting(redact: Redaction, text: str, most: int) -> tuple[str, bool]:
    """
    As much of *text*, without secrets, as JSON writes in *most* bytes, and whether that is all.

    If not, it ends with a mark, between two characters, and never within a secret.
    """
    looked_at = 4 * most + 4096
    kept = _SURROGATE.sub("\ufffd", redact.head(text, looked_at))
    if len(text) <= looked_at and _size(kept) <= most:
        return kept, True
    low, high = 0, min(len(kept), most)
    room = most - len(CUT.encode())
    while low < high:
        middle = (low + high + 1) // 2
        if _size(kept[:middle]) <= room:
            low = middle
        else:
            high = middle - 1
    return kept[:low] + CUT, False


def _size(text: str) -> int:
    return len(encoded(text).encode()) - 2


def _shorter(value: object, most: int) -> object:
    if isinstance(value, str):
        return cut(value, most)
    if isinstance(value, list):
        return [_shorter(each, most) for each in value[: most // 16]]
    if isinstance(value, dict):
        return {cut(name, most): _shorter(each, most) for name, each in list(value.items())[: most // 16]}
    return value


def encoded(value: object) -> str:
    """*value* as JSON, nothing in it that a terminal or an editor acts on."""
    try:
        text = _encode(value).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError):  # surrogates
        text = json.dumps(value)
    return text if text.isascii() and "\x7f" not in text else _HARMFUL.sub(_in_json, text)


def _in_json(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
