"""Neutral events to lines: a line's own bytes as they came, a changed one changed in place, those of others anew."""

from collections.abc import Sequence

import attrs

from llmproxy_core import Frame, Usage
from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    End,
    Failed,
    Finish,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire import decode_object, encode, join_object, with_members
from llmproxy_ollama.reader import Line
from llmproxy_ollama.reply import (
    differing,
    head_members,
    logprobs_members,
    message_members,
    usage_members,
    with_message,
    write_finish,
)
from llmproxy_ollama.tool_calls import answered_call


@attrs.define
class _Call:
    """A call that is being told; its arguments are an object here, so it is held until they are whole."""

    id: str
    name: str
    pieces: list[str] = attrs.field(factory=list)

    def text(self) -> bytes:
        return answered_call(self.id, self.name, "".join(self.pieces))


class ChatWriter:
    """See `llmproxy_core.StreamWriter`. Ollama has one choice; what it cannot say is left out."""

    def __init__(self) -> None:
        self._head: dict[str, bytes] = {}
        self._calls: dict[int, _Call] = {}
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._model: bytes | None = None  # each line names it; another than the provider's when it is set

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        if frame is None or not isinstance(frame.source, Line):
            return b"".join([self._render(event) for event in events])
        if any(isinstance(event, Failed) for event in frame.events):
            return b""  # an error ends the stream through `error_event`
        self._begin(events, frame.events)
        if list(events) == frame.events:
            return self._named(frame)
        if _ends(events) != _ends(frame.events):
            return b"".join([self._render(event) for event in events])
        return self._changed(events, frame, frame.source.text) if events else b""

    def _begin(self, events: Sequence[ChatEvent], own: Sequence[ChatEvent]) -> None:
        """Take what all lines repeat."""
        told = next((event for event in own if isinstance(event, Start)), None)
        shown = next((event for event in events if isinstance(event, Start)), None)
        if shown is not None:
            self._head = head_members("", shown.model, shown.created)
            if told is not None and told.model != shown.model:
                self._model = encode(shown.model)

    def _named(self, frame: Frame) -> bytes:
        if self._model is None or not isinstance(frame.source, Line) or not frame.source.text:
            return frame.raw
        text = frame.source.text
        return frame.raw.replace(text, with_members(text, {"model": self._model}), 1)

    def _changed(self, events: Sequence[ChatEvent], frame: Frame, text: bytes) -> bytes:
        """The line of *frame*, of which the *text* is, saying *events*."""
        changes = differing(_members(frame.events), _members(events))
        if inner := differing(_message(frame.events), _message(events)):
            message = decode_object(text).get("message", b"{}")
            changes["message"] = with_members(bytes(message), inner)
        if self._model is not None:
            changes["model"] = self._model
        return frame.raw.replace(text, with_members(text, changes), 1)

    def _render(self, event: ChatEvent) -> bytes:
        """One event of any protocol."""
        if getattr(event, "choice", 0) != 0:
            return b""
        match event:
            case Start():
                self._head = head_members(event.id, event.model, event.created)
            case TextDelta() | RefusalDelta() if event.text or getattr(event, "logprobs", None):
                return self._line(_message([event]), _members([event]))
            case AudioDelta(transcript=str(text)) if text:
                return self._line(message_members([text], [], []))
            case ReasoningDelta() if event.text:
                return self._line(_message([event]))
            case ToolCallStart():
                self._calls[event.index] = _Call(event.id, event.name)
            case ToolCallDelta() if event.index in self._calls:
                self._calls[event.index].pieces.append(event.arguments)
            case Finished():
                self._finish = event.finish
                return self._told_calls()
            case UsageReported():
                self._usage = event.usage  # the last one counts
            case End():
                return self._told_calls() + self._line(message_members([], [], []), self._closing())
            case _:
                pass
        return b""

    def _told_calls(self) -> bytes:
        calls = [call.text() for _, call in sorted(self._calls.items())]
        self._calls.clear()
        return self._line(message_members([], [], calls)) if calls else b""

    def _closing(self) -> dict[str, bytes]:
        ended = {"done": b"true", "done_reason": write_finish(self._finish)}
        return ended if self._usage is None else ended | usage_members(self._usage)

    def _line(self, message: dict[str, bytes], members: dict[str, bytes] | None = None) -> bytes:
        said = join_object({"role": b'"assistant"'} | message)
        head, self._head = self._head, {name: text for name, text in self._head.items() if name != "id"}
        return join_object(with_message(head | {"done": b"false"} | (members or {}), said)) + b"\n"


def _ends(events: Sequence[ChatEvent]) -> bool:
    return any(isinstance(event, End) for event in events)


def _message(events: Sequence[ChatEvent]) -> dict[str, bytes]:
    texts = [event.text for event in events if isinstance(event, TextDelta | RefusalDelta)]
    thoughts = [event.text for event in events if isinstance(event, ReasoningDelta)]
    calls: dict[int, _Call] = {}
    for event in events:
        if isinstance(event, ToolCallStart):
            calls[event.index] = _Call(event.id, event.name)
        elif isinstance(event, ToolCallDelta) and event.index in calls:
            calls[event.index].pieces.append(event.arguments)
    return message_members(texts, thoughts, [call.text() for call in calls.values()])


def _members(events: Sequence[ChatEvent]) -> dict[str, bytes]:
    """The members beside the message that *events* say."""
    members: dict[str, bytes] = {}
    for event in events:
        match event:
            case Start():
                members["model"] = encode(event.model)
            case TextDelta():
                members |= logprobs_members(event.logprobs)
            case Finished():
                members["done_reason"] = write_finish(event.finish)
            case UsageReported():
                members |= usage_members(event.usage)
            case _:
                pass
    return members
