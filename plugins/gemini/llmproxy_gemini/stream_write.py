"""Events, written as the bytes of a stream."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core import Frame
from llmproxy_core.chat import (
    ChatEvent,
    End,
    Failed,
    Ping,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llmproxy_core.wire import UNSEEN, Changes, encode
from llmproxy_gemini.pairing import pair
from llmproxy_gemini.stream_patch import patch
from llmproxy_gemini.stream_render import ChunkRenderer
from llmproxy_gemini.stream_source import ChunkSource, MergedSource

_TEXTS = (TextDelta, ReasoningDelta, ToolCallDelta)


class EventWriter:
    """
    A StreamWriter for streams of events.

    The bytes of an untouched frame are given back; of a changed one only what changed is written; events without a
    frame become chunks of our own. Events are not to be changed in place: a changed one is another object.
    """

    def __init__(self, *, usage: bool) -> None:
        """*usage*: chunks of our own tell the usage, as the provider's do."""
        self._tells_usage = usage
        self._renderer = ChunkRenderer()
        self._shared: Changes = {}
        self._changed: set[int] = set()

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        """See StreamWriter."""
        if frame is None:
            return b"".join([self._render(event) for event in events])
        source = frame.source
        if source is UNSEEN or (frame.events and isinstance(frame.events[0], Failed)):
            return b""
        if frame.events and isinstance(frame.events[-1], End):
            return self._last(events, frame.raw)
        self._note_changes(events, frame)
        is_same = events is frame.events or _are_same(events, frame.events)
        if is_same and not self._shared and not (self._changed and _echoes(source)):
            self._note(frame)
            return self._frame(frame, None) if isinstance(source, ChunkSource | MergedSource) else frame.raw
        if isinstance(source, ChunkSource):
            return self._patch(events, frame, source)
        return self._around(events, frame)

    # -- what stands around chunks ---------------------------------------------------------------------------------

    def _wrap(self, chunk: bytes) -> bytes:
        """A chunk of our own."""
        return b"data: " + chunk + b"\r\n\r\n"

    def _frame(self, frame: Frame, data: bytes | None) -> bytes:
        """The provider's chunk, with other *data* where it was changed."""
        source = frame.source
        if data is None or not isinstance(source, ChunkSource):
            return frame.raw
        if source.data in frame.raw:
            return frame.raw.replace(source.data, data, 1)
        return self._wrap(data)

    def _end(self, closing: bytes) -> bytes:
        """What closes the stream; *closing* as the provider has it."""
        return b""

    # -- changed frames --------------------------------------------------------------------------------------------

    def _note(self, frame: Frame) -> None:
        for event in frame.events:
            self._renderer.note(event)

    def _note_changes(self, events: Sequence[ChatEvent], frame: Frame) -> None:
        """Remember the candidates whose text is no longer what the provider says."""
        if events is frame.events:
            return
        now = [event for event in events if isinstance(event, _TEXTS)]
        was = [event for event in frame.events if isinstance(event, _TEXTS)]
        if now != was:
            self._changed |= {event.choice for event in [*now, *was]}

    def _patch(self, events: Sequence[ChatEvent], frame: Frame, source: ChunkSource) -> bytes:
        """The frame with what changed, between chunks of our own for what has no place in it."""
        pairing = pair(frame.events, events)
        self._share(frame, pairing.became)
        self._note(frame)
        earlier = b"".join([self._render(event) for event in pairing.earlier])
        own = b""
        if not (pairing.is_empty and frame.events):
            own = self._frame(frame, patch(source, frame.events, pairing.became, self._shared, self._changed))
        return earlier + own + b"".join([self._render(event) for event in pairing.later]) + self._calls()

    def _share(self, frame: Frame, became: Sequence[ChatEvent | None]) -> None:
        """A changed Start changes what every chunk repeats."""
        for was, now in zip(frame.events, became, strict=True):
            if isinstance(was, Start) and isinstance(now, Start):
                if now.model != was.model:
                    self._shared["modelVersion"] = encode(now.model)
                if now.id != was.id:
                    self._shared["responseId"] = encode(now.id)

    def _around(self, events: Sequence[ChatEvent], frame: Frame) -> bytes:
        """A frame that is no single chunk: written anew but for a ping, whose bytes are kept while it is."""
        if isinstance(frame.source, MergedSource):
            starts = [event for event in frame.events if isinstance(event, Start)]
            for event in starts:
                self._renderer.note(event)
            return b"".join([self._render(event) for event in events]) + self._calls()
        self._note(frame)
        kept = frame.raw if any(isinstance(event, Ping) for event in events) else b""
        return b"".join([self._render(event) for event in events]) + kept

    # -- chunks of our own -----------------------------------------------------------------------------------------

    def _render(self, event: ChatEvent) -> bytes:
        match event:
            case End():
                return self._close()
            case Ping() | Failed():
                return b""
            case UsageReported() if not self._tells_usage:
                return b""
            case _:
                return b"".join([self._wrap(chunk) for chunk in self._renderer.render(event)])

    def _last(self, events: Sequence[ChatEvent], closing: bytes) -> bytes:
        """The end, and what is said before it."""
        out = [self._close(closing) if isinstance(event, End) else self._render(event) for event in events]
        return b"".join(out)

    def _calls(self) -> bytes:
        return b"".join([self._wrap(chunk) for chunk in self._renderer.calls()])

    def _close(self, closing: bytes = b"") -> bytes:
        return b"".join([self._wrap(chunk) for chunk in self._renderer.last()]) + self._end(closing)


class ArrayWriter(EventWriter):
    """A StreamWriter for streams that are one array."""

    def __init__(self, *, usage: bool) -> None:
        super().__init__(usage=usage)
        self.is_open = False
        """Whether the array was begun."""

    def _before(self, before: bytes) -> bytes:
        """What stands before the next element: as the provider has it, where that fits."""
        if (b"[" in before) == (not self.is_open) and before:
            text = before
        else:
            text = b",\r\n" if self.is_open else b"["
        self.is_open = True
        return text

    def _wrap(self, chunk: bytes) -> bytes:
        return self._before(b"") + chunk

    def _frame(self, frame: Frame, data: bytes | None) -> bytes:
        source = frame.source
        if isinstance(source, MergedSource):
            return self._before(source.before) + frame.raw.removeprefix(source.before)
        if not isinstance(source, ChunkSource):
            return frame.raw
        return self._before(source.before) + (source.data if data is None else data)

    def _end(self, closing: bytes) -> bytes:
        closing = closing or b"]"
        if self.is_open:
            return closing.replace(b"[", b"")
        self.is_open = True
        return closing if b"[" in closing else b"[" + closing


def _echoes(source: object) -> bool:
    return isinstance(source, ChunkSource) and source.echoes


def _are_same(events: Sequence[ChatEvent], others: Sequence[ChatEvent]) -> bool:
    if len(events) != len(others):
        return False
    return all(one is other or one == other for one, other in zip(events, others, strict=True))
