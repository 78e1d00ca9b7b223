"""What a client hears: the meaning of the bytes that it got."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

import attrs

from llmproxy_core.chat import ChatReply, Choice, End, Failed, ReasoningPart, RefusalPart, TextPart, ToolCall
from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.errors import ProxyError
from llmproxy_core.reply_events import Assembler
from llmproxy_core.testing.verdict import NotConforming


class Aspect(StrEnum):
    """What there is of an answer that a processor may change."""

    TEXT = "text"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOLS = "tools"
    """The tool calls with their arguments."""
    USAGE = "usage"
    FINISH = "finish"
    IDS = "ids"
    """The answer's id and model."""
    SPELLING = "spelling"
    """The bytes alone: it says the same in other words of its protocol (replaced events, an answer from a store)."""


REPLACED = "\ufffd"


@attrs.frozen
class Heard:
    """An answer as its client understands it. *failed*: a stream told an error; *ended*: it had its terminal event."""

    reply: ChatReply
    failed: bool = False
    ended: bool = True

    def aspects(self) -> Mapping[Aspect, object]:
        reply = self.reply
        return {
            Aspect.TEXT: [_joined(it, TextPart) for it in reply.choices],
            Aspect.REASONING: [_joined(it, ReasoningPart) for it in reply.choices],
            Aspect.REFUSAL: [_joined(it, RefusalPart) for it in reply.choices],
            Aspect.TOOLS: [
                (it.index, part.id, part.name, part.arguments)
                for it in reply.choices
                for part in it.content
                if isinstance(part, ToolCall)
            ],
            Aspect.USAGE: reply.usage,
            Aspect.FINISH: [(it.index, None if it.finish is None else it.finish.reason.value) for it in reply.choices],
            Aspect.IDS: (reply.id, reply.model),
        }


def _joined(choice: Choice, kind: type[TextPart | ReasoningPart | RefusalPart]) -> str:
    return "".join(part.text for part in choice.content if isinstance(part, kind))


def hear(dialect: Dialect, api: Api, body: bytes, *, stream: bool) -> Heard:
    """The meaning of *body*. NotConforming when it is none: broken UTF-8, JSON or events."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise NotConforming(
            f"the client got bytes that are no UTF-8 ({error.reason} at {error.start}: "
            f"{body[max(0, error.start - 8) : error.start + 8]!r}); a character of several bytes was cut: work on text "
            "(`rewrite` gives whole characters), or hold back what is incomplete"
        ) from error
    try:
        return _hear_stream(dialect, api, body) if stream else Heard(dialect.read_reply(api, body))
    except ProxyError as error:
        raise NotConforming(f"the client cannot read its answer ({error.message}): {body[:200]!r}") from error


def _hear_stream(dialect: Dialect, api: Api, body: bytes) -> Heard:
    reader = dialect.reader(api)
    assembler, failed, ended = Assembler(), False, False
    for frame in [*reader.feed(body), *reader.end()]:
        assembler.feed(frame.events)
        failed = failed or any(isinstance(event, Failed) for event in frame.events)
        ended = ended or any(isinstance(event, End) for event in frame.events)
    return Heard(assembler.reply(), failed, ended)


def differences(got: Heard, expected: Heard, allowed: Collection[Aspect] = ()) -> list[str]:
    """What *got* says otherwise than *expected*, each as a line, but for the aspects *allowed*."""
    other = expected.aspects()
    return [
        f"{aspect.value}: {other[aspect]!r} became {value!r}"
        for aspect, value in got.aspects().items()
        if aspect not in allowed and value != other[aspect]
    ]
