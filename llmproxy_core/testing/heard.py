"""What a client hears: the meaning of the bytes that it got."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import attrs

from llmproxy_core.chat import ChatReply, Choice, End, Failed, ReasoningPart, RefusalPart, TextPart, ToolCall
from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.errors import ProxyError
from llmproxy_core.reply_events import Assembler
from llmproxy_core.testing.verdict import NotConforming

Aspect = Literal["text", "reasoning", "refusal", "tools", "usage", "finish", "ids", "spelling"]
"""
What there is of an answer that a processor may change.

`tools` are the tool calls with their arguments, `ids` the answer's id and model; `spelling` are the bytes alone: the
answer says the same in other words of its protocol (a replacement of the events, an answer from a store).
"""

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
            "text": [_joined(it, TextPart) for it in reply.choices],
            "reasoning": [_joined(it, ReasoningPart) for it in reply.choices],
            "refusal": [_joined(it, RefusalPart) for it in reply.choices],
            "tools": [
                (it.index, part.id, part.name, part.arguments)
                for it in reply.choices
                for part in it.content
                if isinstance(part, ToolCall)
            ],
            "usage": reply.usage,
            "finish": [(it.index, None if it.finish is None else it.finish.reason.value) for it in reply.choices],
            "ids": (reply.id, reply.model),
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
        f"{aspect}: {other[aspect]!r} became {value!r}"
        for aspect, value in got.aspects().items()
        if aspect not in allowed and value != other[aspect]
    ]
