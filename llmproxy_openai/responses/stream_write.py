"""Events, written as the bytes of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from llmproxy_core.chat import ChatEvent, End, Failed, Finished, OpaqueEvent, Start
from llmproxy_core.frame import Frame
from llmproxy_core.wire import UNSEEN, Changes, encode, join_object, with_members
from llmproxy_openai.responses.noting import note
from llmproxy_openai.responses.open_item import OpenCall
from llmproxy_openai.responses.render import Passed, Renderer
from llmproxy_openai.responses.repeated import SILENCE
from llmproxy_openai.responses.stream_event import (
    LIFECYCLE,
    SAID_IN_PIECES,
    TERMINAL,
    StreamEvent,
    read_item,
)

# What tells once more what was said before; once that was changed, it is told anew.
_TOLD_ONCE_MORE = frozenset(
    {
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.done",
        "response.refusal.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.done",
        "response.reasoning_text.done",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.done",
    }
)
_PIECE = ".delta"
_CITED = "response.output_text.annotation.added"


class ResponseWriter:
    """
    A StreamWriter for the events of a response; usage is always told.

    The bytes of an untouched frame are given back, as long as nothing before it was changed. From then on the answer is
    told anew, piece by piece in the provider's own events, for each text of it stands in four of them.
    """

    gathers: ClassVar[bool] = True

    def __init__(self, asked: Mapping[str, bytes] = SILENCE) -> None:
        """*asked* are the members of the response that repeat the request, where it is made anew (`repeated`)."""
        self._renderer = Renderer(asked)
        self._shared: Changes = {}
        self._is_changed = False

    # -- where it stands, for an error that ends it --------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The number of the next event."""
        return self._renderer.emitter.sequence

    @property
    def response(self) -> bytes | None:
        """The response as it began; None while nothing was sent."""
        return join_object(self._renderer.response) if self._renderer.response else None

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        """See StreamWriter."""
        if frame is None:
            return self._rendered(events)
        source = frame.source
        if not isinstance(source, StreamEvent):
            return self._around(events, frame)
        if frame.events and isinstance(frame.events[-1], Failed):
            return b""  # it ends the stream in its own way
        if not self._is_changed:
            self._share(events, frame)
            if _are_same(events, frame.events):
                note(self._renderer, source, frame.events, self._shared)
                return self._as_read(frame, source)
            self._is_changed = True
        self._tell(events, frame, source)
        return self._renderer.emitter.take()

    def _rendered(self, events: Sequence[ChatEvent]) -> bytes:
        for event in events:
            self._renderer.feed(event)
        return self._renderer.emitter.take()

    def _around(self, events: Sequence[ChatEvent], frame: Frame) -> bytes:
        """A frame that is no event: it stays, with what was put around it."""
        extra = self._rendered([event for event in events if event not in frame.events])
        return extra + (b"" if frame.source is UNSEEN else frame.raw)

    def _share(self, events: Sequence[ChatEvent], frame: Frame) -> None:
        """A changed Start changes what every event repeats that has the response in it."""
        was = next((event for event in frame.events if isinstance(event, Start)), None)
        now = next((event for event in events if isinstance(event, Start)), None)
        if was is None or now is None or now == was:
            return
        if now.id != was.id:
            self._shared["id"] = encode(now.id)
        if now.model != was.model:
            self._shared["model"] = encode(now.model)

    def _as_read(self, frame: Frame, source: StreamEvent) -> bytes:
        if not self._shared or not bytes(source.response):
            return frame.raw
        data = with_members(source.data, {"response": with_members(bytes(source.response), self._shared)})
        return frame.raw.replace(source.data, data, 1)

    # -- an answer that was changed ------------------------------------------------------------------------------

    def _tell(self, events: Sequence[ChatEvent], frame: Frame, source: StreamEvent) -> None:
        """What *events* say, in the provider's own event where it says one of them."""
        renderer, kind = self._renderer, source.type
        if kind in TERMINAL:
            self._end(events, source)
            return
        template = source.data if len(events) == 1 == len(frame.events) and _is_piece(kind) else None
        if kind == "response.output_item.added":
            self._begin_item(source)
        elif kind == "response.content_part.added":
            renderer.part_ends()
        if kind in _TOLD_ONCE_MORE:
            renderer.emitter.keep(kind, source.item_id or "", source.data)
        elif kind.startswith("response.output_item.") and self._is_known_item(source):
            renderer.emitter.keep(kind, read_item(source.item).id or "", source.data)
        told = False
        for event in events:
            if isinstance(event, OpaqueEvent) and event in frame.events:
                self._pass(source, item=event.raw)
                told = True
            elif not isinstance(event, Start):
                same = template if frame.events and type(event) is type(frame.events[0]) else None
                renderer.feed(event, same)
        if kind == "response.output_item.done":
            renderer.other_ends(source.output_index)
        if kind in _TOLD_ONCE_MORE:
            self._note_whole(source)
        elif not told and not _is_piece(kind) and not self._is_known_item(source):
            self._pass(source)

    def _begin_item(self, source: StreamEvent) -> None:
        item = read_item(source.item)
        if item.type in SAID_IN_PIECES:
            self._renderer.item_ends()
        if item.type == "message" and item.id is not None:
            self._renderer.next_message = (item.id, bytes(source.item))

    def _is_known_item(self, source: StreamEvent) -> bool:
        """Whether it begins or ends an item that is told anew."""
        if source.type not in {"response.output_item.added", "response.output_item.done"}:
            return False
        return read_item(source.item).type in SAID_IN_PIECES

    def _pass(self, source: StreamEvent, item: bytes | None = None) -> None:
        """An event that only OpenAI knows: its number and its place may be others."""
        data = source.data
        if source.type in LIFECYCLE:
            data = with_members(data, {"response": with_members(bytes(source.response), self._shared)})
            self._renderer.pass_on(Passed(source.type, data))
            return
        has_place = b'"output_index"' in data
        self._renderer.pass_on(Passed(source.type, data, source.output_index if has_place else None, item))

    def _note_whole(self, source: StreamEvent) -> None:
        """The provider tells a call's arguments as a whole: is that what was said?"""
        whole = source.arguments or source.input
        call = self._renderer.item_of(source.item_id) if source.item_id else self._renderer.open
        if isinstance(call, OpenCall) and isinstance(whole, str) and call.text == whole:
            call.is_told = True

    def _end(self, events: Sequence[ChatEvent], source: StreamEvent) -> None:
        """The response as a whole, with the items that were told."""
        for event in events:
            if isinstance(event, Finished):
                self._renderer.finish = event.finish
            elif not isinstance(event, End):
                self._renderer.feed(event)
        self._renderer.settle()
        if any(isinstance(event, End) for event in events):
            self._renderer.end_as(source.type, source.data, with_members(bytes(source.response), self._shared))


def _is_piece(kind: str) -> bool:
    return kind.endswith(_PIECE) or kind == _CITED


def _are_same(events: Sequence[ChatEvent], others: Sequence[ChatEvent]) -> bool:
    """Whether nothing but the Start is another."""
    if events is others:
        return True
    if len(events) != len(others):
        return False
    return all(
        one is other or one == other or (isinstance(one, Start) and isinstance(other, Start))
        for one, other in zip(events, others, strict=True)
    )
