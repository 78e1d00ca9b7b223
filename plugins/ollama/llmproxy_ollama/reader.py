"""Lines of a stream to neutral events, each line with its bytes."""

import attrs
import msgspec

from llmproxy_core import Frame, UpstreamError, UpstreamGarbage
from llmproxy_core.chat import (
    ChatEvent,
    End,
    Failed,
    Finished,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire import STRING, Members, failed, usual
from llmproxy_ollama.lines import LineSplitter, lines_of
from llmproxy_ollama.reply import WIRE, answer, read_finish, read_head, read_logprobs, read_usage
from llmproxy_ollama.tool_calls import read_call


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: str | None = None


class _PlainLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A piece of the text, and nothing else."""

    message: _PlainMessage
    model: str | None = None
    created_at: str | None = None
    done: bool = False


_plain_line = usual(_PlainLine)


@attrs.frozen
class Line:
    """The object of one line, for the writer."""

    text: bytes


class ChatReader:
    """See `llmproxy_core.StreamReader`."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._known: str | None = None
        self._calls = 0
        self._is_over = False

    def feed(self, data: bytes) -> list[Frame]:
        return [] if self._is_over else self._frames(self._lines.feed(data))

    def end(self) -> list[Frame]:
        return [] if self._is_over else self._frames(self._lines.end())

    def _frames(self, block: bytes) -> list[Frame]:
        frames: list[Frame] = []
        for raw in lines_of(block):
            try:
                events = self._events(raw) if raw.strip() else []
            except UpstreamGarbage as error:
                if not frames:
                    raise
                events = [failed(error)]
            except UpstreamError as error:
                events = [failed(error)]
            frames.append(Frame(raw, events, Line(raw.strip())))
            if any(isinstance(event, End | Failed) for event in events):
                self._is_over = True
                break
        return frames

    def _events(self, raw: bytes) -> list[ChatEvent]:
        if self._known is not None and (plain := _plain_line(raw)) is not None and not plain.done:
            said = plain.message.content
            return [TextDelta(0, said)] if said else []
        members = answer(raw)
        known, model, created = read_head(members)
        events: list[ChatEvent] = []
        if self._known is None:
            self._known = known
            events.append(Start(known, model, created))
        message = members.object("message")
        if message is not None:
            events += self._said(message, read_logprobs(members.raw("logprobs")))
        finish = read_finish(members, called=self._calls > 0)
        if finish is not None:
            usage = read_usage(members)
            events += [Finished(0, finish), *([] if usage is None else [UsageReported(usage)]), End()]
        return events

    def _said(self, message: Members, logprobs: bytes | None) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        if thought := message.take("thinking", STRING):
            events.append(ReasoningDelta(0, thought))
        said = message.take("content", STRING)
        if said or logprobs is not None:
            events.append(TextDelta(0, said or "", logprobs))
        for text in message.array("tool_calls"):
            index, self._calls = self._calls, self._calls + 1
            call = read_call(text, f"message.tool_calls[{index}]", WIRE, self._known, index)
            events += [ToolCallStart(0, index, call.id, call.name, call.kind), ToolCallDelta(0, index, call.arguments)]
        return events
