"""
The work on a stream between the upstream's bytes and the client's, without any I/O.

Three engines, chosen once per stream: `Opaque` copies; `Copying` copies whole events and lets the dialect's scanner
watch; `Decoding` reads events, runs them through watchers and filters, and writes them in the client's dialect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from llmproxy_core.chat import ChatEvent, End, Failed, Finished, Start, TextDelta, UsageReported
from llmproxy_core.citation_places import CitationPlaces
from llmproxy_core.dialect import Scanner, StreamWriter
from llmproxy_core.errors import (
    InternalError,
    ProcessorFailed,
    ProxyError,
    UpstreamCut,
    UpstreamError,
    raise_unless_bug,
    too_long,
)
from llmproxy_core.estimate import TextCount
from llmproxy_core.frame import Frame
from llmproxy_core.keeping import Keeper
from llmproxy_core.layer import OUTSIDE, Layer
from llmproxy_core.model_shown import renamer, show_model
from llmproxy_core.outcome import MOST_FINISH_WORDS
from llmproxy_core.reply_events import answers
from llmproxy_core.request import ClientView
from llmproxy_core.response import Stream, redact_error
from llmproxy_core.stages import Filtering, TextStage, Watching, apply_to_events
from llmproxy_core.subscription import Keep, Rewrite, Subscription, Watch

_log = logging.getLogger("llmproxy")

EventStep = Callable[[Frame | None, list[ChatEvent]], list[ChatEvent]]
"""What one subscription does to the events of a frame (None: events that no frame carried)."""

Passes = Callable[[bytes, bytes], bool] | None
"""See QuickScanner."""


class EventSteps:
    """The work of subscriptions on events, one after the other."""

    __slots__ = ("_exchange_id", "_steps")

    def __init__(self, exchange_id: str) -> None:
        self._exchange_id = exchange_id
        self._steps: list[tuple[Layer, EventStep, bool]] = []

    def add(self, owner: Layer, step: EventStep, *, only_looks: bool = False) -> None:
        """*only_looks*: without it the events are the same, so that it may be left out when it fails."""
        self._steps.append((owner, step, only_looks))

    def apply(self, frame: Frame | None, events: list[ChatEvent]) -> list[ChatEvent]:
        """*events* after all steps. ProxyError: a verdict, or ProcessorFailed for a bug."""
        for place in self._steps:
            owner, step, only_looks = place
            try:
                events = step(frame, events)
            except ProxyError:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is told, or is logged and left out
                raise_unless_bug(error)
                if (failure := bug_of(owner, error, self._exchange_id, only_looks=only_looks)) is not None:
                    raise failure from None
                self._steps = [it for it in self._steps if it is not place]
        return events


def bug_of(owner: Layer, bug: BaseException, exchange_id: str, *, only_looks: bool) -> ProcessorFailed | None:
    """
    The error that names who made the watcher, filter or replacement that raised *bug*; None: it may be left out.

    *bug* is in the log then, and nowhere else: where the error is told, nobody needs to log it again.
    """
    name = f"The processor {owner.name!r}" if owner.name else "A processor"
    if only_looks and owner.passes_over:
        _log.error("%s failed on the answer to exchange %s, which goes on without it", name, exchange_id, exc_info=bug)
        return None
    _log.error("%s failed on the answer to exchange %s", name, exchange_id, exc_info=bug)
    return ProcessorFailed(f"{name} failed on this answer")


class Engine(Protocol):
    """
    Fed with what is read, it gives what is to be sent, at most one piece per read.

    After a call, *error* says that the stream has failed: what the call gave is still to be sent, then the error.
    *done* says that the answer is complete, whatever the upstream may still send. What it gives before *begun* says
    nothing yet that an error with a status of its own could not be told instead of.
    """

    begun: bool
    done: bool
    error: ProxyError | None

    @property
    def passes(self) -> Passes:
        """Until the next `feed`: whether a chunk may go out as it is, and is not to be fed (see QuickScanner)."""
        ...

    @property
    def told(self) -> Scanner | StreamWriter | None:
        """What has seen all that the client got, for an error event that goes on from there."""
        ...

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes:
        """The upstream's body has ended by itself."""
        ...


class Opaque:
    """Whatever it is, it passes; the end of the body is the end of the answer."""

    __slots__ = ("_response", "begun", "done", "error")
    told = None
    passes: Passes = None

    def __init__(self, response: Stream) -> None:
        self._response = response
        self.begun = True
        self.done = False
        self.error: ProxyError | None = None

    def feed(self, data: bytes) -> bytes:
        self._response.note_begun()
        return data

    def end(self) -> bytes:
        self.done = True
        return b""


class Copying:
    """The client speaks as the upstream does and nobody watches: whole events are copied as bytes."""

    __slots__ = ("_copies", "_keepers", "_rename", "_response", "_scanner", "begun", "done", "error")

    def __init__(self, response: Stream, client: ClientView) -> None:
        assert response.api is not None
        self._response = response
        self._scanner = response.dialect.scanner(response.api, usage=client.wants_usage)
        response.output_tokens = self._scanner.output_tokens
        self._keepers = [
            Keeper(wish, response.api.name, stream=True) for wish in response.subscriptions if isinstance(wish, Keep)
        ]
        shown = response.shown_model
        self._rename = None if shown is None else renamer(response.dialect.model_member, shown)
        self._copies = not self._keepers and shown is None
        self.begun = True  # to know what an event says, it would have to be decoded
        self.done = False
        self.error: ProxyError | None = None

    @property
    def told(self) -> Scanner:
        return self._scanner

    @property
    def passes(self) -> Passes:
        return getattr(self._scanner, "passes", None) if self._copies else None

    def feed(self, data: bytes) -> bytes:
        scanner = self._scanner
        for keeper in self._keepers:
            keeper.add(data)
        try:
            out = scanner.feed(data)
        except UpstreamError as error:
            self.error = error
            return b""
        self._look()
        return out if self._rename is None else self._rename(out, scanner.model)

    def end(self) -> bytes:
        try:
            out = self._scanner.end()
        except UpstreamError as error:
            self.error = error
            return b""
        self._look()
        if not self.done and self.error is None:
            self.error = UpstreamCut("The upstream's stream ended without its terminal event")
        return out if self._rename is None else self._rename(out, self._scanner.model)

    def _look(self) -> None:
        scanner, response = self._scanner, self._response
        response.usage, response.model, response.finish_words = scanner.usage, scanner.model, scanner.finish
        response.response_id = scanner.id
        if response.first_byte_s is None and (scanner.output_tokens() or scanner.finish or scanner.done):
            response.note_begun()
        if scanner.error is not None:
            redact_error(scanner.error, response.redact)
            self.error = scanner.error
        if scanner.done and self.error is None and not self.done:
            self.done = True
            for keeper in self._keepers:
                keeper.done()


class Facts:
    """Notes on a response what its events say about it; finds out whether they end it."""

    __slots__ = ("_count", "_is_silent", "done", "error", "response")

    def __init__(self, response: Stream) -> None:
        self.response = response
        self._count = TextCount()
        response.output_tokens = self._count.tokens
        self._is_silent = True
        self.done = False
        self.error: UpstreamError | None = None

    def look(self, events: list[ChatEvent]) -> None:
        if self._is_silent and any(map(answers, events)):
            self._is_silent = False
            self.response.note_begun()
        if len(events) == 1 and type(events[0]) is TextDelta:  # nearly all frames
            self._count.note(events[0].text)
            return
        response = self.response
        self._count.add(events)
        for event in events:
            if isinstance(event, Start):
                response.model = event.model or response.model
                response.response_id = event.id or response.response_id
            elif isinstance(event, UsageReported):
                response.usage = event.usage
            elif isinstance(event, Finished):
                word = event.finish.word or event.finish.reason.value
                response.finish_words = (*response.finish_words, word)[-MOST_FINISH_WORDS:]
            elif isinstance(event, Failed):
                self.error = failure(event)
            elif isinstance(event, End):
                self.done = True


def failure(event: Failed) -> UpstreamError:
    """The error that the upstream reported in mid-stream."""
    return UpstreamError(
        event.message,
        status=event.status,
        code=event.code,
        error_type=event.error_type,
        upstream_status=200,  # that of the stream; *status* is what the event stands for
        param=event.param,
        retryable=event.retryable,
        retry_after_s=event.retry_after_s,
        dialect=event.dialect,
        body=event.body,
    )


class Decoding:
    """Reads events, applies the subscriptions in their order, writes for the client. Each event is decoded once."""

    __slots__ = (
        "_asked",
        "_exchange_id",
        "_facts",
        "_keepers",
        "_most_bytes",
        "_places",
        "_reader",
        "_redact",
        "_same_form",
        "_shown",
        "_size",
        "_steps",
        "_writer",
        "begun",
        "done",
        "error",
    )
    passes: Passes = None

    def __init__(self, response: Stream, client: ClientView) -> None:
        assert response.api is not None
        assert client.api is not None
        self._reader = response.dialect.reader(response.api)
        self._writer: StreamWriter = client.dialect.writer(client.api, usage=client.wants_usage)
        self._same_form = client.api.name == response.api.name
        self._shown = response.shown_model
        self._asked = None if self._same_form else response.exchange.request.model
        self._places = None if self._same_form else CitationPlaces()
        gathers = not self._same_form or getattr(self._writer, "gathers", False)  # what an end repeats
        self._most_bytes = response.max_bytes if gathers else None
        self._size = 0
        self._facts = Facts(response)
        self._redact = response.redact
        self._exchange_id = response.exchange.id
        self._keepers: list[Keeper] = []
        self._steps = event_steps(response, response.subscriptions, self._keepers)
        self.begun = self._same_form  # what is copied goes out as it comes, watched or not
        self.done = False
        self.error: ProxyError | None = None

    @property
    def told(self) -> StreamWriter:
        return self._writer

    def feed(self, data: bytes) -> bytes:
        if self._most_bytes is not None:
            self._size += len(data)
            if self._size > self._most_bytes:
                self.error = too_long(self._most_bytes)
                return b""
        try:
            frames = self._reader.feed(data)
        except UpstreamError as error:
            self.error = error
            return b""
        return self._pass(frames)

    def end(self) -> bytes:
        try:
            frames = self._reader.end()
        except UpstreamError as error:
            self.error = error
            return b""
        out = self._pass(frames)
        if not self.done and self.error is None:
            self.error = UpstreamCut("The upstream's stream ended without its terminal event")
        return out

    def _pass(self, frames: list[Frame]) -> bytes:
        out: list[bytes] = []
        for frame in frames:
            self._facts.look(frame.events)
            if self._facts.error is not None:
                redact_error(self._facts.error, self._redact)
                self.error = self._facts.error
                break
            try:
                events = self._steps.apply(frame, frame.events)
                if self._places is not None:
                    events = self._places.place(events, ends_text=frame.ends_text)
                if self._facts.done and not self._same_form:
                    events = self._with_usage(events)
                if events and isinstance(events[0], Start):  # it comes first, and once
                    events = show_model(events, self._shown, self._asked)
                out.append(self._writer.write(events, frame if self._same_form else None))
                if not self.begun:
                    self.begun = any(map(answers, events))
            except ProxyError as error:  # a watcher's verdict, its bug, or what the client's dialect cannot say
                self.error = error
                break
            except BaseException as bug:  # noqa: BLE001 - after the status was sent only an error event can tell of a bug
                raise_unless_bug(bug)
                _log.exception("the answer to exchange %s could not be written", self._exchange_id)
                self.error = InternalError("The answer could not be passed on")
                break
            if self._facts.done:
                self.done = True
                for keeper in self._keepers:
                    keeper.done()
                break
        return b"".join(out)

    def _with_usage(self, events: list[ChatEvent]) -> list[ChatEvent]:
        """The last *events*, with an estimated usage where the upstream told none: other protocols always tell one."""
        response = self._facts.response
        usage = response.told_usage(response.usage)
        if usage is None or usage is response.usage:
            return events
        if response.llm:
            response.usage = usage  # what the client is told is what is billed, though a better tokenizer may come
        return [*(it for it in events if not isinstance(it, End | UsageReported)), UsageReported(usage), End()]


def event_steps(
    response: Stream, subscriptions: list[Subscription], keepers: list[Keeper], *, rewritten: bool = False
) -> EventSteps:
    """
    *subscriptions* (without Replace) as steps over events; those that keep add their keeper to *keepers*.

    A keeper below every rewrite takes the frames as they came; above one (*rewritten*: below all of these is one) it
    encodes what is left of them, once, in the dialect of who made the response.
    """
    assert response.api is not None
    steps = EventSteps(response.exchange.id)
    for wish in subscriptions:
        match wish:
            case Watch(make, owner):
                steps.add(owner, _text_step(Watching(make)), only_looks=True)
            case Rewrite(make, owner):
                rewritten = True
                steps.add(owner, _text_step(Filtering(make)))
            case Keep():
                keeper = Keeper(wish, response.api.name, stream=True)
                keepers.append(keeper)
                writer = response.dialect.writer(response.api, usage=True) if rewritten else None
                steps.add(OUTSIDE, _keep_step(keeper, writer))
            case _:
                raise TypeError("a replacement of the events is no step of theirs")
    return steps


def _text_step(stage: TextStage) -> EventStep:
    return lambda frame, events: apply_to_events(stage, events)


def _keep_step(keeper: Keeper, writer: StreamWriter | None) -> EventStep:
    def keep(frame: Frame | None, events: list[ChatEvent]) -> list[ChatEvent]:
        if writer is not None:
            keeper.add(writer.write(events, frame))
        elif frame is not None:
            keeper.add(frame.raw)
        return events

    return keep


def engine_for(response: Stream, client: ClientView) -> Engine:
    """The cheapest engine that does what was subscribed to; no Replace among it."""
    if response.api is None:
        return Opaque(response)
    same_form = client.api is not None and client.api.name == response.api.name
    wishes = response.subscriptions
    if same_form and (not wishes or all(isinstance(wish, Keep) for wish in wishes)):
        return Copying(response, client)
    return Decoding(response, client)
