"""The bytes that the checks try a dialect on: what was recorded, and what it writes itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from llmproxy_core.chat import ChatEvent, ReasoningDelta, TextDelta, ToolCallDelta
from llmproxy_core.dialect import Api
from llmproxy_core.reply_events import events_of
from llmproxy_core.testing.dialect import answers, conversations
from llmproxy_core.testing.dialect.case import Case
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.json_changes import spaced

Given = tuple[Case, bytes]


def requests(declared: DeclaredDialect, api: Api) -> Iterator[Given]:
    """Recorded requests; made ones, each in the dialect's own spacing and indented."""
    for sample in declared.recorded(api):
        if sample.request is not None:
            yield Case(declared, api, f"the request of {sample}", recorded=True), sample.request
    for word, chat in conversations.one_by_one(declared):
        case = Case(declared, api, f"a request that says {word!r}")
        body = case.write_chat(attrs.evolve(chat, stream=api.streams is not False))
        yield case, body
        yield case.but("indented"), spaced(body)


def replies(declared: DeclaredDialect, api: Api) -> Iterator[Given]:
    """Recorded answers; made ones, each in the dialect's own spacing and indented."""
    for sample in declared.recorded(api):
        if sample.reply is not None:
            yield Case(declared, api, f"the reply of {sample}", recorded=True), sample.reply
    for word, reply in answers.one_by_one(declared):
        case = Case(declared, api, f"a reply that says {word!r}")
        body = case.write_reply(reply)
        yield case, body
        yield case.but("indented"), spaced(body)


def streams(declared: DeclaredDialect, api: Api) -> Iterator[Given]:
    """Recorded streams, and made ones."""
    for sample in declared.recorded(api):
        if sample.stream is not None:
            yield Case(declared, api, f"the stream of {sample}", recorded=True), sample.stream
    for word, reply in answers.one_by_one(declared):
        case = Case(declared, api, f"a stream that says {word!r}")
        yield case, case.write_stream(list(in_pieces(events_of(reply))))


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
