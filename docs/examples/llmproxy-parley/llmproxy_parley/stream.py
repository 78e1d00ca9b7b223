"""
Streams: `open` (id, model), then `thought` and `word`, then `close` (ended, tokens); `oops` (an error) ends it too.

Each is an event with a name and one line of JSON. A comment keeps the connection alive.
"""

import re
from collections.abc import Sequence

from llmproxy_core import Frame, UpstreamError, Usage
from llmproxy_core.chat import (
    ChatEvent,
    End,
    Failed,
    Finish,
    Finished,
    OpaqueEvent,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    UsageReported,
)
from llmproxy_core.wire import (
    STRING,
    UNSEEN,
    Envelope,
    Event,
    EventReader,
    EventScanner,
    Members,
    Wire,
    encode,
    encode_event,
    garbage,
    join_object,
    made_id,
    read_body,
    reported_error,
    with_members,
)
from llmproxy_parley.apis import NAME, TALK
from llmproxy_parley.reply import read_finish, read_usage, write_finish, write_usage
from llmproxy_parley.thought import members_of, read_thought

_WIRE = Wire(TALK.form, own=True, fail=garbage)


def failure(data: bytes) -> UpstreamError:
    """The error that the event `oops` tells."""
    return reported_error(NAME, read_body(data) or Envelope("The provider failed without saying why"), data)


class TalkScanner(EventScanner):
    """Looks at the few events that tell something; `word`, nearly all of them, is copied as it came."""

    telling = re.compile(rb"event: ?(?:open|close|oops)")
    texts = re.compile(rb'"(?:says|text)"\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)"')

    def note(self, event: Event) -> None:
        match event.event:
            case "open":
                members = Members(event.data, "open", garbage)
                self.id, self.model = members.take("id", STRING), members.take("model", STRING)
            case "close":
                members = Members(event.data, "close", garbage)
                word = members.take("ended", STRING)
                self.finish = () if word is None else (word,)
                self.usage = read_usage(members.object("tokens"))
                self.done = True
            case "oops":
                self.error = failure(event.data)
            case _:  # the pattern stands in what the model says
                pass


class TalkReader(EventReader):
    """Bytes to events, each with the bytes it was read from."""

    def read(self, event: Event) -> list[Frame]:
        if event.event == "oops":
            return self.fail(event.raw, failure(event.data))
        return [Frame(event.raw, self._events(event), event)]

    def _events(self, event: Event) -> list[ChatEvent]:
        members = Members(event.data, event.event, garbage)
        match event.event:
            case "open":
                return [Start(members.take("id", STRING) or "", members.take("model", STRING) or "")]
            case "thought":
                part = read_thought(event.data, "thought", _WIRE)
                carried = (part.signature, part.redacted, part.encrypted, part.provider)
                return [ReasoningDelta(0, part.text, *carried, id=part.id)]
            case "word":
                return [TextDelta(0, members.need("says", STRING))]
            case "close":
                finish, usage = read_finish(members.take("ended", STRING)), read_usage(members.object("tokens"))
                self.is_over = True
                told: list[ChatEvent] = [] if finish is None else [Finished(0, finish)]
                return [*told, *([] if usage is None else [UsageReported(usage)]), End()]
            case _:
                return [OpaqueEvent(event.event, event.raw)]


class TalkWriter:
    """Events to bytes: a frame's own as they came, changed ones changed in place, those of other protocols anew."""

    def __init__(self) -> None:
        self._has_begun = False
        self._finish: Finish | None = None
        self._usage: Usage | None = None

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        if frame is None:
            return b"".join([self._render(event) for event in events])
        own = frame.events
        self._has_begun = self._has_begun or any(isinstance(event, Start) for event in own)
        if any(isinstance(event, Failed) for event in own) or frame.source is UNSEEN:
            return b""  # an error ends the stream through `error_event`
        if list(events) == own:
            return frame.raw
        if isinstance(frame.source, Event) and [type(event) for event in events] == [type(event) for event in own]:
            members = {name: text for event in events for name, text in _members(event).items()}
            data = frame.source.data
            return frame.raw.replace(data, with_members(data, dict(members)), 1)
        rest = [event for event in events if event not in own]
        if len(events) - len(rest) == len(own):  # more is said before it
            return b"".join([self._render(event) for event in rest]) + frame.raw
        return b"".join([self._render(event) for event in events])

    def _render(self, event: ChatEvent) -> bytes:
        """One event of any protocol. Parley has one choice and no tools; what it cannot say is left out."""
        if getattr(event, "choice", 0) != 0:
            return b""
        match event:
            case Start():
                self._has_begun = True
                made = Start(event.id or made_id(event.model, event.created, prefix="talk_"), event.model)
                return _event("open", _members(made))
            case TextDelta() | RefusalDelta() if event.text:
                return self._begin() + _event("word", _members(event))
            case ReasoningDelta() if len(_members(event)) > 1 or event.text:
                return self._begin() + _event("thought", _members(event))
            case Finished():
                self._finish = event.finish
            case UsageReported():
                self._usage = event.usage  # the last one counts
            case End():
                return self._begin() + _event("close", self._closing())
            case _:
                pass
        return b""

    def _begin(self) -> bytes:
        return b"" if self._has_begun else self._render(Start("", ""))

    def _closing(self) -> dict[str, bytes]:
        ended = {"ended": write_finish(self._finish)}
        return ended if self._usage is None else ended | {"tokens": write_usage(self._usage)}


def _event(name: str, members: dict[str, bytes]) -> bytes:
    return encode_event(join_object(members), name)


def _members(event: ChatEvent) -> dict[str, bytes]:
    match event:
        case Start():
            return {"id": encode(event.id), "model": encode(event.model)}
        case TextDelta() | RefusalDelta():
            return {"says": encode(event.text)}
        case ReasoningDelta():
            return members_of(event)
        case Finished():
            return {"ended": write_finish(event.finish)}
        case UsageReported():
            return {"tokens": write_usage(event.usage)}
        case _:
            return {}
