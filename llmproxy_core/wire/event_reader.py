"""A stream's bytes as frames: what readers of all protocols with server-sent events share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from llmproxy_core.chat import Failed, Ping
from llmproxy_core.errors import UpstreamError, UpstreamGarbage
from llmproxy_core.frame import Frame
from llmproxy_core.sse import BOM, DEFAULT_MAX_EVENT_BYTES, Event, SSEDecoder, SSEError, parse_event
from llmproxy_core.wire.last_event import completed


class _Unseen:
    """The source of a frame whose bytes no client may see: fields without data."""


UNSEEN: Final = _Unseen()


class EventReader(ABC):
    """
    A StreamReader, but for what the events of its protocol mean: `read` tells that.

    It gives the frames of whole events, none after the terminal event or an error. Garbage is an UpstreamGarbage when
    nothing comes before it in the same bytes; otherwise it takes its place in the stream, as a Failed.
    """

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._decoder = SSEDecoder(max_event_bytes)
        self.is_over = False
        """Set it with the terminal event."""

    @abstractmethod
    def read(self, event: Event) -> list[Frame]:
        """The frames that *event*, which has data, completes. UpstreamGarbage for what is no event of the protocol."""

    def fail(self, raw: bytes, error: UpstreamError) -> list[Frame]:
        """The frames of a stream that ends, at the bytes *raw*, with *error*."""
        self.is_over = True
        return [Frame(raw, [failed(error)])]

    def close(self) -> list[Frame]:
        """What the end of the body completes."""
        return []

    def feed(self, data: bytes) -> list[Frame]:
        """The frames of the events that *data* completes."""
        try:
            events = self._decoder.feed(data)
        except SSEError as error:
            raise UpstreamGarbage("An event of the provider's stream is too long") from error
        return self._frames(events)

    def end(self) -> list[Frame]:
        """The frames of a last event that is whole but for its blank line, and of `close`."""
        events = self._decoder.end()
        if events and not events[0].complete:
            whole = completed(events[0].raw)
            events = [parse_event(whole.removeprefix(BOM), raw=whole)] if whole else []
        frames = self._frames(events)
        return frames if self.is_over else [*frames, *self.close()]

    def _frames(self, events: list[Event]) -> list[Frame]:
        frames: list[Frame] = []
        for event in events:
            if self.is_over:
                break
            if not event.data.strip():
                frames.append(Frame(event.raw, [Ping()]) if event.is_forwardable else Frame(event.raw, [], UNSEEN))
                continue
            try:
                frames += self.read(event)
            except UpstreamGarbage as error:
                if not frames:
                    raise
                frames += self.fail(event.raw, error)
        return frames


def failed(error: UpstreamError) -> Failed:
    """*error* as the last event of a stream."""
    return Failed(
        error.message,
        error.code,
        error.error_type,
        error.status,
        param=error.param,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        dialect=error.dialect,
        body=error.body,
    )
