"""
Server-Sent Events, sans-io: bytes in, events or whole events' bytes out, split anywhere.

Source: WHATWG HTML, section 9.2 "Server-sent events", in particular 9.2.5 (the grammar) and 9.2.6
(interpretation). `SSEDecoder` reads events; `EventSplitter` only cuts a stream between them, which is all
that pass-through needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

DEFAULT_MAX_EVENT_BYTES = 32 << 20
"""As long as a plain answer may be by default: images and documents come in one event."""
LF, CR = b"\n\r"
"""As numbers: `in` finds one in bytes ten times as quickly as a byte string."""
BOM = b"\xef\xbb\xbf"


class SSEError(ValueError):
    """One event is longer than the bound; what was fed it cannot be used any more."""


class Event:
    """
    One block of a stream: its lines up to a blank line.

    Only a block with `has_data` is an event to a client. One without (comments; `event`, `id` or `retry`
    alone), or with empty data, must never be written as an event: clients choke on it. `is_forwardable` says
    whether its bytes may be passed on as they came. Not changed after it is made.
    """

    __slots__ = ("complete", "data", "event", "has_data", "has_fields", "id", "raw", "retry_ms")

    def __init__(self, raw: bytes, data: bytes | None = None, *, event: str = "", complete: bool = True) -> None:
        self.raw = raw
        """The very bytes, from blank lines before it to its own blank line. All raws joined are the stream."""
        self.has_data = data is not None
        self.has_fields = self.has_data
        """Whether there is a line that is neither blank nor a comment."""
        self.data = data or b""
        """The data lines joined by LF, not checked to be UTF-8."""
        self.event = event
        """The name; "" where the stream gives none (the standard's default is "message")."""
        self.id: str | None = None
        """What an `id` field says; None without one."""
        self.retry_ms: int | None = None
        """What a `retry` field says; None without one."""
        self.complete = complete
        """False for what the end of the stream cut short. The standard drops it; a caller may use it if it parses."""

    @property
    def is_forwardable(self) -> bool:
        """Whether a client may see the bytes: they have data in them, or are comments and blank lines only."""
        return bool(self.data.strip()) or not self.has_fields

    def __repr__(self) -> str:  # never the data: it is the conversation
        state = "" if self.complete else ", incomplete"
        return f"Event({self.event!r}, {len(self.data)} bytes of data, {len(self.raw)} raw{state})"


class SSEDecoder:
    """
    Reads events from chunks. Any split of a stream gives the same events; time is linear in its length.

    SSEError when an event is longer than *max_event_bytes*.
    """

    __slots__ = ("_at_start", "_has_cr", "_held", "_in_event", "_max", "_scanned", "scanned_bytes")

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._held = bytearray()
        self._scanned = 0  # where in the held bytes the search goes on
        self._in_event = False  # whether more than blank lines stands before _scanned
        self._has_cr = False  # whether the held bytes may have a CR
        self._at_start = True
        self.scanned_bytes = 0
        """Bytes searched so far, for tests of the linear time."""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that *chunk* completes."""
        if not self._held:
            events, rest = self._usual(chunk)
            if not rest:
                return events
            self._has_cr = CR in rest
            events += self._take(rest, self._next_end(rest))
            return events
        self._has_cr = self._has_cr or CR in chunk
        self._held += chunk
        end = self._next_end(self._held)
        if end < 0:
            self._check_bound(len(self._held))
            return []
        data = bytes(self._held)
        self._held.clear()
        return self._take(data, end)

    def _usual(self, chunk: bytes) -> tuple[list[Event], bytes]:
        """The events at the beginning of *chunk* that are as nearly all are, and what comes after them."""
        events: list[Event] = []
        position = 0
        while (found := _USUAL_EVENT(chunk, position)) is not None:
            end = found.end()
            self._check_bound(end - position)
            name = found[1]
            raw = chunk if end - position == len(chunk) else chunk[position:end]
            events.append(Event(raw, found[2], event=name.decode(errors="replace") if name else ""))
            position = end
        if position:
            self._at_start = False
            self.scanned_bytes += position
        return events, chunk[position:]

    def end(self) -> list[Event]:
        """What is left at the end of the stream: at most one event, incomplete unless it ends in a blank line."""
        raw = bytes(self._held)
        self._held.clear()
        self._scanned, self._in_event = 0, False
        if not raw:
            return []
        # A CR that might have been half a CRLF was a line end of its own.
        return [self._parse(raw, complete=raw.endswith(b"\n\r") or not raw.strip(b"\r\n"))]

    def _take(self, data: bytes, end: int) -> list[Event]:
        """The events in *data*, whose first ends at *end*; holds the rest."""
        events = []
        start = 0
        while end >= 0:
            self._check_bound(end - start)
            events.append(self._parse(data[start:end]))
            start = self._scanned = end
            self._in_event = False
            end = self._next_end(data)
        rest = memoryview(data)[start:]
        self._check_bound(len(rest))
        self._held += rest
        self._has_cr = self._has_cr and CR in self._held
        self._scanned -= start
        return events

    def _next_end(self, data: bytes | bytearray) -> int:
        """Where the event that is searched for ends in *data*, or -1; remembers how far it looked."""
        start = self._scanned
        if not self._in_event:
            start = _skip_blank_lines(data, start)
            self._in_event = start < len(data)
        end = _event_end(data, start, has_cr=self._has_cr)
        self.scanned_bytes += (len(data) if end < 0 else end) - self._scanned
        # The last three bytes of a blank line may be split. The search never goes back before the event's
        # first line.
        self._scanned = max(start, len(data) - 2)
        return end

    def _parse(self, raw: bytes, *, complete: bool = True) -> Event:
        if self._at_start:
            self._at_start = False
            if raw.startswith(BOM):
                return parse_event(raw[len(BOM) :], raw=raw, complete=complete)
        return parse_event(raw, complete=complete)

    def _check_bound(self, length: int) -> None:
        if length > self._max:
            raise SSEError(f"An event is longer than {self._max} bytes")


_USUAL_EVENT = re.compile(rb"(?:event: ([^\r\n]*+)\r?\n)?data: ([^\r\n]*+)(?:\n\n|\r\n\r\n)").match
_ONE_DATA_LINE = re.compile(rb"data: ([^\r\n]*+)(?:\n\n|\r\n\r\n)")


def parse_event(block: bytes, *, raw: bytes | None = None, complete: bool = True) -> Event:
    """The event that one block of lines says. *raw*: its bytes on the wire, where *block* is less (a BOM)."""
    raw = block if raw is None else raw
    if (one := _ONE_DATA_LINE.fullmatch(block)) is not None:  # nearly all events of nearly all streams
        return Event(raw, one[1], complete=complete)
    event = Event(raw, complete=complete)
    data: list[bytes] = []
    for line in block.splitlines():  # of bytes: at CR, LF and CRLF only
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        event.has_fields = event.has_fields or bool(name)
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event.event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            event.id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) < 19:
            event.retry_ms = int(value)
    if data:
        event.data, event.has_data = b"\n".join(data), True
    return event


class EventSplitter:
    """
    Passes a stream on in whole events: what is returned ends after a blank line, the incomplete rest is held.

    All that `feed` and `end` return, joined, is the input. A byte is held longer only where a CR may be half
    a CRLF. SSEError when more than *max_event_bytes* would be held. Time is linear in the length of the
    stream.
    """

    __slots__ = ("_max", "held", "scanned_bytes")

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self.held = bytearray()
        """Of an event that is not complete."""
        self.scanned_bytes = 0
        """Bytes searched so far, for tests of the linear time."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes of all events complete by now; b"" while there is none."""
        held = len(self.held)
        if not held and chunk.endswith(b"\n\n"):
            return chunk
        start = max(0, held - 2)  # a blank line is made out by three bytes at most
        data: bytes | bytearray = chunk
        if held:
            self.held += chunk
            data = self.held
        self.scanned_bytes += len(data) - start
        end = _last_event_end(data, start)
        if held and end >= 0:
            data = bytes(data)
            self.held.clear()
        end = max(end, 0)
        if not held or end:
            self.held += memoryview(data)[end:]
        if len(self.held) > self._max:
            raise SSEError(f"An event is longer than {self._max} bytes")
        return bytes(data[:end])

    def end(self) -> bytes:
        """What is held at the end of the stream."""
        rest = bytes(self.held)
        self.held.clear()
        return rest


def split_events(block: bytes) -> Iterator[bytes]:
    """The events in *block*, each with blank lines before it and its own; a rest without one comes last."""
    has_cr = CR in block
    start = 0
    while start < len(block):
        end = _event_end(block, _skip_blank_lines(block, start), has_cr=has_cr)
        if end < 0:
            end = len(block)
        yield block[start:end]
        start = end


def event_start(block: bytes, position: int) -> int:
    """Where the event begins in *block*, or one before it, that *position* stands in."""
    return max(_last_event_end(block[:position], 0), 0)


def encode(data: bytes | str, event: str | None = None) -> bytes:
    """
    The bytes of one event. A line end in *data* (CR, LF, CRLF) begins a new data line; readers get it as LF.

    ValueError when *data* is empty, since clients choke on that, or when *event* has a line end.
    """
    if isinstance(data, str):
        data = data.encode()
    if not data:
        raise ValueError("an event needs data")
    if LF in data or CR in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    if not event:
        return b"data: " + data + b"\n\n"
    if "\n" in event or "\r" in event:
        raise ValueError("the name of an event is one line")
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A block of comments, one for each line of *text*: it keeps a connection alive and says nothing."""
    return b": " + b"\n: ".join(_LINE_END.split(text.encode())) + b"\n\n"


# -- where events end ----------------------------------------------------------------------------------------

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLANK_LINES = re.compile(rb"[\r\n]*+")
# The end of a line and a blank line. Of CR CR the second is a blank line whatever follows: an LF after it
# would be one more blank line at most, which means nothing. After LF CR an LF may still belong to the blank
# line.
_BOUNDARY = re.compile(rb"\n\r?\n|\r\r|\n\r(?=[^\n])")


def _skip_blank_lines(data: bytes | bytearray, start: int) -> int:
    blank = _BLANK_LINES.match(data, start)
    assert blank is not None
    return blank.end()


def _event_end(data: bytes | bytearray, start: int, *, has_cr: bool) -> int:
    """Where the event after *start* ends, -1 when that is not known yet. *has_cr*: *data* may have a CR."""
    if not has_cr:
        end = data.find(b"\n\n", start)
        return end if end < 0 else end + 2
    boundary = _BOUNDARY.search(data, start)
    return -1 if boundary is None else boundary.end()


def _last_event_end(data: bytes | bytearray, start: int) -> int:
    """Where the last event ends that is complete in *data*, -1 when there is none after *start*."""
    end = data.rfind(b"\n\n", start)
    end = end if end < 0 else end + 2
    if data.find(b"\r", start) < 0:
        return end
    for boundary in (b"\r\r", b"\n\r\n"):
        found = data.rfind(boundary, start)
        if found >= 0:
            end = max(end, found + len(boundary))
    found = data.rfind(b"\n\r", start, len(data) - 1)  # the last byte tells nothing: an LF may follow
    if found >= 0:
        end = max(end, found + 2)
    return end
