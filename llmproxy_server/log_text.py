"""The log for people: a line each, its columns below each other, with colour where a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from llmproxy_server.log_line import (
    MAX_EXCEPTION,
    MAX_LINE_BYTES,
    Entry,
    Shortened,
    escape,
    fitting,
    level_name,
    told,
)
from llmproxy_server.log_redact import Redaction

_ROOM = 64  # bytes of a line for what colours it
_MOST_LINES = 60  # of a traceback, and of each content
_IN_SUMMARY = frozenset({"method", "path", "status", "duration_ms", "input_tokens", "output_tokens", "usage_source"})
_IDS = frozenset({"request_id", "client", "upstream_request_id", "trace_id"})
_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_RED, _GREEN, _YELLOW, _BLUE = (f"\x1b[{code}m" for code in (31, 32, 33, 34))
_LEVEL_COLOURS = {"error": _RED, "warn": _YELLOW, "info": _GREEN, "debug": _BLUE, "trace": _DIM}


class TextLines:
    """A line each; a traceback and contents follow on lines of their own, which are set in."""

    def __init__(
        self, redact: Redaction | None = None, *, colour: bool = False, max_content_bytes: int = 8 << 10
    ) -> None:
        """*max_content_bytes*: as of `JsonLines`."""
        self._redact = redact or Redaction()
        self._colour = colour
        self._max_content = max_content_bytes

    def quickly(self, entries: Sequence[Entry]) -> list[bytes] | None:
        return None

    def line(self, entry: Entry) -> str:
        fields = told(entry.fields, entry.more)
        time = datetime.fromtimestamp(entry.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        level = level_name(entry.level)
        status = fields.get("status") if "duration_ms" in fields else None
        shorten = Shortened(self._redact)
        said = shorten.text(entry.message) if status is None else _asked(fields, shorten)
        left_out = frozenset[str]() if status is None else _IN_SUMMARY
        words = [
            f"{shorten.text(name)}={_shown(shorten.value(value))}"
            for name, value in sorted(fields.items(), key=_is_id)
            if shorten.room and name not in left_out
        ]
        if status is not None and fields.get("input_tokens") is not None:
            used = (shorten.text(fields.get(name)) for name in ("input_tokens", "output_tokens"))
            words.insert(0, f"tokens={'+'.join(used)}")
        rest = escape(self._redact("  ".join([said, *words])))
        code = "" if status is None else escape(f"{status!s:3.3} ")
        first = self._head(time, level, code) + _bounded(rest, MAX_LINE_BYTES - _ROOM)
        return "\n".join([first, *self._below(entry)])

    def _head(self, time: str, level: str, code: str) -> str:
        if not self._colour:
            return f"{time} {level:5} {code}"
        shown = f"{_DIM}{time}{_RESET} {_LEVEL_COLOURS.get(level, '')}{level:5}{_RESET} "
        return shown + (f"{_colour_of(code)}{code}{_RESET}" if code else "")

    def _below(self, entry: Entry) -> Iterator[str]:
        if entry.exception:
            yield from _set_in(self._redact(entry.exception)[-MAX_EXCEPTION:])
        if entry.content is not None:
            for name, text in entry.content().items():
                yield f"    {escape(name)}:"
                yield from _set_in(fitting(self._redact, text, self._max_content)[0])


def _is_id(field: tuple[str, object]) -> bool:
    """Ids stand last: one looks for them, and does not read them."""
    return field[0] in _IDS


def _asked(fields: Mapping[str, object], shorten: Shortened) -> str:
    duration = f"{fields.get('duration_ms')!s:>8} ms"
    return f"{duration}  {shorten.text(fields.get('method'))} {shorten.text(fields.get('path'))}"


def _shown(value: object) -> str:
    """A list is joined by commas; of a mapping the values are enough."""
    if isinstance(value, list):
        return ",".join(map(_shown, value))
    if isinstance(value, dict):
        return ":".join(_shown(each) for each in value.values() if each is not None)
    return str(value)


def _set_in(text: str) -> Iterator[str]:
    """The beginning of *text*, which says who talks of what, and its end, which says most of a traceback."""
    lines = text.split("\n")
    left_out = len(lines) - _MOST_LINES
    if left_out > 0:
        half = _MOST_LINES // 2
        lines[half : half + left_out] = [f"… {left_out} lines left out …"]
    for each in lines:
        yield _bounded("    " + escape(each), MAX_LINE_BYTES)


def _bounded(line: str, most: int) -> str:
    data = line.encode("utf-8", "replace")
    return line if len(data) <= most else data[: most - 3].decode("utf-8", "ignore") + "…"


def _colour_of(code: str) -> str:
    return {"2": _GREEN, "4": _YELLOW, "5": _RED}.get(code[:1], "")
