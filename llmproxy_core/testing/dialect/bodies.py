"""The bytes that the checks try a dialect on: what was recorded, and what it writes itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from llmproxy_core.chat import ChatEvent, ChatReply, ReasoningDelta, TextDelta, ToolCallDelta
from llmproxy_core.dialect import Api
from llmproxy_core.reply_events import events_of
from llmproxy_core.testing.dialect import answers, conversations
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.json_changes import spaced
from llmproxy_core.testing.dialect.reading import succeeds

Body = tuple[str, bytes]
"""Where it comes from, for messages, and the bytes."""


def requests(declared: DeclaredDialect, api: Api) -> Iterator[Body]:
    """Recorded requests; made ones, each in the dialect's own spacing and indented."""
    for sample in declared.recorded(api):
        if sample.request is not None:
            yield f"{api.name}, the request of {sample}", sample.request
    for word, chat in conversations.one_by_one(declared):
        chat = attrs.evolve(chat, stream=api.streams is not False)
        where = f"{api.name}, a request that says {word!r}"
        body = succeeds(where, lambda chat=chat: declared.dialect.write_chat(api, chat))  # type: ignore[misc]
        yield where, body
        yield f"{where}, indented", spaced(body)


def replies(declared: DeclaredDialect, api: Api) -> Iterator[Body]:
    """Recorded answers; made ones, each in the dialect's own spacing and indented."""
    for sample in declared.recorded(api):
        if sample.reply is not None:
            yield f"{api.name}, the reply of {sample}", sample.reply
    for word, reply in answers.one_by_one(declared):
        where = f"{api.name}, a reply that says {word!r}"
        body = succeeds(where, lambda reply=reply: declared.dialect.write_reply(api, reply))  # type: ignore[misc]
        yield where, body
        yield f"{where}, indented", spaced(body)


def streams(declared: DeclaredDialect, api: Api) -> Iterator[Body]:
    """Recorded streams, and made ones."""
    for sample in declared.recorded(api):
        if sample.stream is not None:
            yield f"{api.name}, the stream of {sample}", sample.stream
    for word, reply in answers.one_by_one(declared):
        where = f"{api.name}, a stream that says {word!r}"
        yield where, written(declared, api, in_pieces(events_of(reply)), where)


def made_stream(declared: DeclaredDialect, api: Api, reply: ChatReply, where: str) -> bytes:
    """*reply* as a stream, its texts in pieces."""
    return written(declared, api, in_pieces(events_of(reply)), where)


def written(
    declared: DeclaredDialect, api: Api, events: Iterable[ChatEvent], where: str, *, together: bool = False
) -> bytes:
    """*events* as the bytes of a stream, each in a call of its own, or all *together* in one."""

    def write() -> bytes:
        writer = declared.dialect.writer(api, usage=True)
        batches = [list(events)] if together else [[event] for event in events]
        return b"".join([writer.write(batch, None) for batch in batches])

    return succeeds(where, write, advice="the writer must take any event of any protocol")


def in_pieces(events: Iterable[ChatEvent]) -> Iterator[ChatEvent]:
    """As a model streams: each text in several deltas."""
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta) and " " in event.text:
            head, tail = event.text[: len(event.text) // 2], event.text[len(event.text) // 2 :]
            if isinstance(event, TextDelta):
                yield TextDelta(event.choice, head, event.logprobs)
                yield attrs.evolve(event, text=tail, logprobs=None)
            else:
                yield ReasoningDelta(event.choice, head, provider=event.provider)
                yield attrs.evolve(event, text=tail)
        elif isinstance(event, ToolCallDelta) and len(event.arguments) > 1:
            yield ToolCallDelta(event.choice, event.index, event.arguments[:1])
            yield ToolCallDelta(event.choice, event.index, event.arguments[1:])
        else:
            yield event
