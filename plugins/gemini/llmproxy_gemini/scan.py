"""Streams that are copied as bytes, watched as cheaply as the protocol allows."""

from __future__ import annotations

import re
from itertools import islice
from typing import ClassVar

from llmproxy_core import MOST_FINISH_WORDS, UpstreamGarbage
from llmproxy_core.wire import BOM, Event, EventScanner, event_start, parse_event, split_events
from llmproxy_gemini.array_split import MAX_ELEMENT_BYTES, ArraySplitter
from llmproxy_gemini.chunk import NULLS, decode_candidate, decode_chunk, error_in
from llmproxy_gemini.usage import read_usage

_USAGE = re.compile(rb'"usageMetadata"\s*+:\s*+\{\s*+"').match
"""Matches where it is not empty."""


class ChunkScanner(EventScanner):
    """
    A Scanner for streams of events.

    Every chunk tells the usage so far, and the last one counts: so one event of each read is decoded, besides those
    that finish a candidate or report an error. (Of what came before an error, too: it is billed.)
    """

    telling: ClassVar[re.Pattern[bytes]] = re.compile(rb'"(?:finishReason|blockReason|error)"\s*+:')
    texts: ClassVar[re.Pattern[bytes]] = re.compile(rb'"text"\s*+:\s*+"((?:[^"\\]++|\\.)*+)"')
    max_event_bytes = MAX_ELEMENT_BYTES

    def __init__(self) -> None:
        super().__init__()
        self._finished: dict[int, str] = {}
        self._begun: set[int] = set()
        self._is_blocked = False

    def feed(self, data: bytes) -> bytes:
        """See Scanner."""
        out = super().feed(data)
        if out:
            self._look_at_last(out)
        return out

    def end(self) -> bytes:
        """See Scanner."""
        out = super().end()
        if out:
            self._look_at_last(out)
            self.ended()
        return out

    def _look_at_last(self, block: bytes) -> None:
        """Note what *block* tells last: behind it there may be comments, and an error."""
        event = _last_telling(block)
        if event.data.strip() and self.telling.search(event.data) is None:  # or: it was noted
            self.decoded += 1
            self.note(event)

    def note(self, event: Event) -> None:
        """See EventScanner."""
        try:
            self._take(event.data)
        except UpstreamGarbage as error:
            self.error = error

    def _take(self, data: bytes) -> None:
        chunk = decode_chunk(data)
        self.error = error_in(chunk, data) or self.error
        self.model = chunk.model_version or self.model
        self.id = chunk.response_id or self.id
        if bytes(chunk.usage_metadata) not in NULLS:
            self.usage = read_usage(bytes(chunk.usage_metadata)) or self.usage
        if not chunk.candidates and chunk.blocked is not None:
            self._is_blocked = True
            self.finish = (chunk.blocked,)
        for position, text in enumerate(chunk.candidates or ()):
            candidate = decode_candidate(bytes(text))
            index = position if candidate.index is None else candidate.index
            self._begun.add(index)
            if candidate.finish_reason:
                self._finished[index] = candidate.finish_reason
                last = islice(reversed(self._finished.values()), MOST_FINISH_WORDS)
                self.finish = tuple(last)[::-1]

    def ended(self) -> None:
        """The answer is complete when each candidate that was seen has finished."""
        self.done = self._begun <= self._finished.keys() if self._begun else self._is_blocked


def _last_telling(block: bytes) -> Event:
    """The last event of *block*, of whole events, that tells a usage; where none does, the last that has data."""
    if block.count(b"data:") == 1:  # nearly every read
        return _parsed(block)
    place = len(block)
    while (place := block.rfind(b'"usageMetadata"', 0, place)) >= 0:
        if _USAGE(block, place) is not None:
            return _parsed(next(split_events(block[event_start(block, place) :])))
    events = [_parsed(raw) for raw in split_events(block)]
    return next((event for event in reversed(events) if event.data.strip()), events[-1])


def _parsed(raw: bytes) -> Event:
    return parse_event(raw.removeprefix(BOM))


class ArrayScanner(ChunkScanner):
    """A Scanner for streams that are one array: its elements are watched as if they were events."""

    def __init__(self) -> None:
        super().__init__()
        self._elements = ArraySplitter()
        self.is_open = False
        """Whether the client has got the array's beginning."""
        self._closing = b""

    def feed(self, data: bytes) -> bytes:
        """See Scanner."""
        if self._is_over:
            return b""
        out: list[bytes] = []
        for element in self._elements.feed(data):
            if element.data:
                super().feed(b"data: " + element.data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n")
            if self.error is not None:
                break
            if not element.data:
                self._closing += element.before
                continue
            out.append(element.before + element.data)
            self.is_open = True
        return b"".join(out)

    def end(self) -> bytes:
        """See Scanner: what closes the array goes out when the answer is complete; one that was not closed is cut."""
        if self._is_over or not self._elements.is_closed:
            return b""
        super().end()
        return self._closing if self.done else b""
