"""Events, written as the bytes of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from llmproxy_core import sse
from llmproxy_core.chat import ChatEvent, End, Failed, Ping, Start, UsageReported
from llmproxy_core.frame import Frame
from llmproxy_core.usage import Usage
from llmproxy_core.wire.event_reader import UNSEEN
from llmproxy_core.wire.form import Changes
from llmproxy_core.wire.splice import encode
from llmproxy_openai.chunk import ChunkSource
from llmproxy_openai.pairing import Pairing, pair
from llmproxy_openai.stream_form import StreamForm
from llmproxy_openai.stream_patch import patch
from llmproxy_openai.stream_render import ChunkRenderer

_DONE = b"data: [DONE]\n\n"


class ChunkWriter:
    """
    A StreamWriter for one wire form.

    The bytes of an untouched frame are given back; of a changed one only what changed is written; events without a
    frame become chunks of our own. Events are not to be changed in place: a changed one is another object.
    """

    def __init__(self, form: StreamForm, *, usage: bool) -> None:
        """*usage*: the client asked for the usage chunk."""
        self._form = form
        self._wants_usage = usage
        self._renderer = self.renderer(form, usage=usage)
        self._usage: Usage | None = None
        self._shared: Changes = {}

    renderer: ClassVar[type[ChunkRenderer]] = ChunkRenderer
    """What writes events without a frame."""

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        """See StreamWriter."""
        if frame is None:
            return b"".join([self._render(event) for event in events])
        source = frame.source
        if isinstance(source, ChunkSource):
            self._renderer.is_native = True
            self._renderer.calls = source.calls
        for event in frame.events:
            self._renderer.note(event)
        if not self._shared and (events is frame.events or _are_same(events, frame.events)):
            return self._as_read(frame)
        if isinstance(source, ChunkSource):
            return self._patch(events, frame, source)
        return self._around(events, frame)

    def _as_read(self, frame: Frame) -> bytes:
        """The frame's bytes; nothing for usage nobody asked for, an error (it ends the stream its own way), …"""
        source = frame.source
        if source is UNSEEN or (frame.events and isinstance(frame.events[0], Failed)):
            return b""
        if isinstance(source, ChunkSource) and source.only_usage and not self._wants_usage:
            return b""
        return frame.raw

    def _patch(self, events: Sequence[ChatEvent], frame: Frame, source: ChunkSource) -> bytes:
        """The frame with what changed, between chunks of our own for what has no place in it."""
        pairing = pair(frame.events, source.places, events)
        self._share(pairing.slots[0][2] if pairing.slots else None)
        earlier = b"".join([self._render(event) for event in pairing.earlier])
        later = b"".join([self._render(event) for event in pairing.later])
        return earlier + self._patched(pairing, frame, source) + later

    def _patched(self, pairing: Pairing, frame: Frame, source: ChunkSource) -> bytes:
        if (pairing.is_empty and frame.events) or (source.only_usage and not self._wants_usage):
            return b""
        data = patch(source, pairing, self._form.api, self._shared)
        if source.data in frame.raw:
            return frame.raw.replace(source.data, data, 1)
        return sse.encode(data, sse.parse_event(frame.raw).event)

    def _share(self, start: ChatEvent | None) -> None:
        """A changed Start changes what every chunk repeats."""
        was = self._renderer.start
        if not isinstance(start, Start) or was is None or start == was:
            return
        if start.id != was.id:
            self._shared["id"] = encode(start.id)
        if start.model != was.model:
            self._shared["model"] = encode(start.model)
        self._renderer.begin(start)

    def _around(self, events: Sequence[ChatEvent], frame: Frame) -> bytes:
        """A frame that is no chunk (a ping, the end): its bytes are kept while its event is."""
        own = frame.events[0] if frame.events else None
        is_kept = own is None or own in events
        extra = b"".join([self._render(event) for event in events if event != own])
        return extra + (self._as_read(frame) if is_kept else b"")

    def _render(self, event: ChatEvent) -> bytes:
        """*event* in chunks of our own. Usage waits for the end: the last one counts."""
        match event:
            case UsageReported():
                self._usage = event.usage
                return b""
            case End():
                return self._renderer.end(self._usage if self._wants_usage else None) + _DONE
            case Ping() | Failed():
                return b""
            case _:
                return self._renderer.render(event)


def _are_same(events: Sequence[ChatEvent], others: Sequence[ChatEvent]) -> bool:
    if len(events) != len(others):
        return False
    return all(one is other or one == other for one, other in zip(events, others, strict=True))
