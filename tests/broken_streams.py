"""OpenAI's dialect with one fault each, in its scanners, readers and writers of streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from llmproxy_core import (
    Api,
    Frame,
    StreamReader,
    StreamWriter,
)
from llmproxy_core.chat import (
    ChatEvent,
    End,
    Failed,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.dialect import Scanner
from llmproxy_openai import OpenAIDialect
from tests.faults import Wrapped, fault

# -- readers and scanners --------------------------------------------------------------------------------------------


class EditedReader(Wrapped):
    """A reader whose events are changed frame by frame."""

    def __init__(self, inner: StreamReader, edit: Callable[[list[ChatEvent]], list[ChatEvent]]) -> None:
        super().__init__(inner)
        self._edit = edit

    def feed(self, data: bytes) -> list[Frame]:
        return [attrs.evolve(frame, events=self._edit(frame.events)) for frame in self._inner.feed(data)]


@fault("its calls are counted from 1", "reads_events_in_order")
class CountsFromOne(OpenAIDialect):
    def reader(self, api: Api) -> StreamReader:
        def edit(events: list[ChatEvent]) -> list[ChatEvent]:
            return [attrs.evolve(it, index=it.index + 1) if isinstance(it, ToolCallStart) else it for it in events]

        return EditedReader(super().reader(api), edit)


@fault("each frame has a Start", "reads_events_in_order")
class StartsAgain(OpenAIDialect):
    def reader(self, api: Api) -> StreamReader:
        return EditedReader(super().reader(api), lambda events: [Start("a", "m"), *events])


@fault("it tells usage after the end", "reads_events_in_order")
class UsageLate(OpenAIDialect):
    def reader(self, api: Api) -> StreamReader:
        late: list[ChatEvent] = []

        def edit(events: list[ChatEvent]) -> list[ChatEvent]:
            late.extend(it for it in events if isinstance(it, UsageReported))
            rest: list[ChatEvent] = [it for it in events if not isinstance(it, UsageReported)]
            if any(isinstance(it, End) for it in rest):
                rest.extend(late)
            return rest

        return EditedReader(super().reader(api), edit)


@fault("it forgets half an event", "reads_streams_however_they_are_cut")
class Forgets(OpenAIDialect):
    def reader(self, api: Api) -> StreamReader:
        make = super().reader

        class Forgetful(Wrapped):
            def feed(self, data: bytes) -> list[Frame]:
                frames: list[Frame] = self._inner.feed(data)
                if not frames:
                    self._inner = make(api)
                return frames

        return Forgetful(make(api))


@fault("its scanner passes half events on", "reads_streams_however_they_are_cut")
class PassesHalf(OpenAIDialect):
    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        class Halving(Wrapped):
            def feed(self, data: bytes) -> bytes:
                passed: bytes = self._inner.feed(data)
                return passed if data.endswith(b"\n") else passed + b" "

        return Halving(super().scanner(api, usage=usage))


@fault("its scanner overlooks usage", "copies_streams")
class NoScannedUsage(OpenAIDialect):
    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        class Blind(Wrapped):
            usage = None

        return Blind(super().scanner(api, usage=usage))  # type: ignore[return-value]


@fault("it writes untouched frames anew", "copies_streams")
class FramesAnew(OpenAIDialect):
    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        class Anew(Wrapped):
            def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
                return bytes(self._inner.write(events, None))

        return Anew(super().writer(api, usage=usage))


@fault("a rewritten text loses unknown members", "rewrites_the_text_of_streams_alone")
class RewriteLoses(OpenAIDialect):
    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        class Losing(Wrapped):
            def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
                same = frame is not None and list(events) == frame.events
                return bytes(self._inner.write(events, frame if same else None))

        return Losing(super().writer(api, usage=usage))


@fault("its scanner takes a finish for the end", "never_completes_a_cut_stream")
class DoneEarly(OpenAIDialect):
    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        class Early(Wrapped):
            @property
            def done(self) -> bool:
                return bool(self._inner.finish)

        return Early(super().scanner(api, usage=usage))  # type: ignore[return-value]


@fault("its reader ends whatever ends", "never_completes_a_cut_stream")
class EndsAlways(OpenAIDialect):
    def reader(self, api: Api) -> StreamReader:
        class Ending(Wrapped):
            over = False

            def feed(self, data: bytes) -> list[Frame]:
                frames: list[Frame] = self._inner.feed(data)
                self.over = self.over or any(isinstance(it, End | Failed) for frame in frames for it in frame.events)
                return frames

            def end(self) -> list[Frame]:
                frames: list[Frame] = self._inner.end()
                return frames if self.over else [*frames, Frame(b"", [End()])]

        return Ending(super().reader(api))


@fault("it estimates nothing", "tells_what_was_generated")
class NoEstimate(OpenAIDialect):
    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        class Estimating(Wrapped):
            def output_tokens(self) -> int:
                return 0

        return Estimating(super().scanner(api, usage=usage))  # type: ignore[return-value]


@fault("its keep-alive is an event", "keeps_clients_waiting_in_its_own_words")
class LoudKeepalive(OpenAIDialect):
    def keepalive(self, api: Api) -> bytes:
        return b'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"."}}]}\n\n'


# -- writers ---------------------------------------------------------------------------------------------------------


class EditedWriter(Wrapped):
    """A writer that is given other events than came."""

    def __init__(self, inner: StreamWriter, edit: Callable[[ChatEvent], list[ChatEvent]]) -> None:
        super().__init__(inner)
        self._edit = edit

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        edited = events if frame is not None else [made for event in events for made in self._edit(event)]
        return bytes(self._inner.write(edited, frame))


@fault("streamed thinking is lost", "says_the_same_plain_and_streamed")
class NoThinking(OpenAIDialect):
    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        inner = super().writer(api, usage=usage)
        return EditedWriter(inner, lambda it: [] if isinstance(it, ReasoningDelta) else [it])


@fault("its streams break the grammar", "says_the_same_plain_and_streamed")
class NoDone(OpenAIDialect):
    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        class Named(Wrapped):
            def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
                out: bytes = self._inner.write(events, frame)
                return out if frame is not None else out.replace(b"data: {", b"event: chunk\ndata: {")

        return Named(super().writer(api, usage=usage))


@fault("interleaved calls are mixed up", "takes_events_in_any_order")
class MixesCalls(OpenAIDialect):
    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        last = 0

        def edit(event: ChatEvent) -> list[ChatEvent]:
            nonlocal last
            if isinstance(event, ToolCallStart):
                last = event.index
            return [attrs.evolve(event, index=last)] if isinstance(event, ToolCallDelta) else [event]

        return EditedWriter(super().writer(api, usage=usage), edit)


@fault("it chokes on what it does not know", "takes_events_in_any_order")
class Chokes(OpenAIDialect):
    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        known: Mapping[type[Any], bool] = dict.fromkeys((Start, TextDelta, ToolCallStart, ToolCallDelta, End), True)

        def edit(event: ChatEvent) -> list[ChatEvent]:
            if "Opaque" in type(event).__name__:
                raise KeyError(known[type(event)])
            return [event]

        return EditedWriter(super().writer(api, usage=usage), edit)
