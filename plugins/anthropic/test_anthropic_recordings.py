"""Real traffic: read and written byte for byte, and the same however it is cut and in whichever form it comes."""

import json
from collections.abc import Iterable
from itertools import pairwise

import attrs
import pytest
from llmproxy_anthropic import AnthropicDialect
from llmproxy_anthropic.apis import COUNT_TOKENS, MESSAGES

from llmproxy_core import Frame, Translation
from llmproxy_core.chat import ChatEvent, ChatReply, End, Failed, Part, RefusalPart, TextPart, ToolCall
from llmproxy_core.reply_events import Assembler, events_of
from llmproxy_core.testing.grammar import check_stream
from llmproxy_openai import OpenAIDialect
from tests.recordings import Recording, recording, recordings

ANTHROPIC, OPENAI = AnthropicDialect(), OpenAIDialect()
CHAT = OPENAI.apis[0]
ASKED = recordings(provider="anthropic", protocol="messages")
COUNTED = recordings(provider="anthropic", protocol="count_tokens")
PLAIN = [it for it in ASKED if it.response_status == 200 and not it.is_event_stream]
STREAMS = [it for it in ASKED if it.response_status == 200 and it.is_event_stream]
WHOLE_STREAMS = [it for it in STREAMS if "midway" not in it.name]
FROM_OPENAI = [it for it in recordings(protocol="chat") if it.response_status == 200]
each = pytest.mark.parametrize


def read(stream: bytes, size: int = 1 << 20) -> list[Frame]:
    reader = ANTHROPIC.reader(MESSAGES)
    pieces = [stream[place : place + size] for place in range(0, len(stream), size)]
    return [frame for piece in pieces for frame in reader.feed(piece)] + reader.end()


def events(frames: Iterable[Frame]) -> list[ChatEvent]:
    return [event for frame in frames for event in frame.events]


def said(reply: ChatReply) -> list[Part]:
    """The parts of an answer, neighbouring texts as one, arguments as the JSON that they are."""
    parts: list[Part] = []
    for part in reply.choices[0].content:
        if isinstance(part, ToolCall):
            part = attrs.evolve(part, arguments=json.dumps(json.loads(part.arguments), sort_keys=True), extra={})
        last = parts[-1] if parts else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            parts[-1] = TextPart(last.text + part.text, last.citations + part.citations)
        else:
            parts.append(part)
    return parts


@each("case", [*ASKED, *COUNTED], ids=str)
def test_a_request_is_written_as_it_was_read(case: Recording) -> None:
    api = COUNT_TOKENS if case.protocol == "count_tokens" else MESSAGES

    chat = ANTHROPIC.read_chat(api, case.request_body)

    assert ANTHROPIC.write_chat(api, chat) == case.request_body


@each("case", PLAIN, ids=str)
def test_an_answer_is_written_as_it_was_read(case: Recording) -> None:
    reply = ANTHROPIC.read_reply(MESSAGES, case.response_body)

    assert ANTHROPIC.write_reply(MESSAGES, reply) == case.response_body


@each("case", STREAMS, ids=str)
def test_a_stream_is_the_same_however_it_is_cut(case: Recording) -> None:
    whole = read(case.response_body)

    for size in (1, 7, 61):
        assert events(read(case.response_body, size)) == events(whole)


@each("case", WHOLE_STREAMS, ids=str)
def test_an_untouched_stream_keeps_its_bytes(case: Recording) -> None:
    writer, scanner = ANTHROPIC.writer(MESSAGES, usage=True), ANTHROPIC.scanner(MESSAGES, usage=True)

    written = b"".join(writer.write(list(frame.events), frame) for frame in read(case.response_body))

    assert written == case.response_body
    assert b"".join(scanner.feed(bytes([byte])) for byte in case.response_body) + scanner.end() == case.response_body


@each("case", WHOLE_STREAMS, ids=str)
def test_a_scanner_and_a_reader_tell_the_same_facts(case: Recording) -> None:
    scanner = ANTHROPIC.scanner(MESSAGES, usage=True)
    assembler = Assembler()

    scanner.feed(case.response_body)
    assembler.feed(events(read(case.response_body)))
    reply = assembler.reply()

    assert (scanner.id, scanner.model, scanner.usage) == (reply.id, reply.model, reply.usage)
    assert reply.choices[0].finish is not None
    assert (scanner.finish, scanner.done) == ((reply.choices[0].finish.word,), True)
    assert scanner.decoded == 3  # the beginning, how it ended, and the end


@each("case", PLAIN, ids=str)
def test_a_whole_answer_streamed_is_the_same_answer(case: Recording) -> None:
    reply = ANTHROPIC.read_reply(MESSAGES, case.response_body)
    writer = ANTHROPIC.writer(MESSAGES, usage=True)

    stream = b"".join(writer.write([event], None) for event in events_of(reply))
    assembler = Assembler()
    assembler.feed(events(read(stream)))

    assert said(assembler.reply()) == said(reply)
    assert assembler.reply().usage == reply.usage
    assert assembler.reply().choices[0].finish == reply.choices[0].finish


@each("case", WHOLE_STREAMS, ids=str)
def test_a_stream_written_anew_says_the_same(case: Recording) -> None:
    """As after a processor that replaced the events: each is written without what it was read from."""
    told = events(read(case.response_body))
    writer = ANTHROPIC.writer(MESSAGES, usage=True)

    stream = b"".join(writer.write([event], None) for event in told)

    assert check_stream("anthropic", stream, strict=False) == []
    first, second = Assembler(), Assembler()
    first.feed(told)
    second.feed(events(read(stream)))
    assert said(second.reply()) == said(first.reply())
    assert second.reply().usage == first.reply().usage


@each("case", WHOLE_STREAMS, ids=str)
def test_a_stream_reaches_a_client_of_openai(case: Recording) -> None:
    writer = OPENAI.writer(CHAT, usage=True)

    stream = b"".join(writer.write(frame.events, None) for frame in read(case.response_body))

    assert check_stream("openai", stream, usage=True) == []


@each("case", [it for it in FROM_OPENAI if it.is_event_stream], ids=str)
def test_a_stream_of_chunks_reaches_our_client(case: Recording) -> None:
    reader, writer = OPENAI.reader(CHAT), ANTHROPIC.writer(MESSAGES, usage=True)

    frames = reader.feed(case.response_body) + reader.end()
    stream = b"".join(writer.write(frame.events, None) for frame in frames)

    found = check_stream("anthropic", stream)
    has_usage = any(type(event).__name__ == "UsageReported" for event in events(frames))
    assert found == [] or (not has_usage and all("no input token" in it for it in found))


@each("case", [it for it in FROM_OPENAI if not it.is_event_stream], ids=str)
def test_an_answer_of_openai_reaches_our_client(case: Recording) -> None:
    reply = OPENAI.read_reply(CHAT, case.response_body)

    back = ANTHROPIC.read_reply(MESSAGES, ANTHROPIC.write_reply(MESSAGES, reply))

    assert (back.id, back.model) == (reply.id, reply.model)
    assert (back.usage and back.usage.total_tokens) == (reply.usage and reply.usage.total_tokens)
    assert back.text == "".join(
        part.text for part in reply.choices[0].content if isinstance(part, TextPart | RefusalPart)
    )


@each("model", ["claude-3-5-sonnet-20241022", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8"])
@each("case", recordings(protocol="chat"), ids=str)
def test_a_request_of_openai_is_written(case: Recording, model: str) -> None:
    """Where what cannot be said is left out, nothing is refused; and what is written can be read."""
    chat = attrs.evolve(OPENAI.read_chat(CHAT, case.request_body), model=model)
    told = Translation(llm="claude", drops=True)

    body = ANTHROPIC.write_chat(MESSAGES, chat, told)

    back = json.loads(body)
    assert ANTHROPIC.read_chat(MESSAGES, body).model == model
    assert back["max_tokens"] >= 1
    roles = [message["role"] for message in back["messages"]]
    assert roles[0] == "user"
    assert all(one != other for one, other in pairwise(roles))
    assert {"n", "seed", "stream_options", "logit_bias", "store", "user"}.isdisjoint(back)


def test_an_error_in_mid_stream_ends_it_after_what_was_good() -> None:
    case = recording("messages-stream-made-stream-overloaded-midway")
    scanner = ANTHROPIC.scanner(MESSAGES, usage=True)

    copied = scanner.feed(case.response_body) + scanner.end()
    told = events(read(case.response_body))

    assert b"Partial" in copied
    assert b"overloaded" not in copied
    assert scanner.error is not None
    assert (scanner.error.status, scanner.error.error_type, scanner.done) == (529, "overloaded_error", False)
    assert isinstance(told[-1], Failed)
    assert (told[-1].status, told[-1].message) == (529, "Overloaded")
    assert not any(isinstance(event, End) for event in told)


def test_the_input_that_the_end_corrects_counts() -> None:
    case = recording("messages-stream-fixture-message-delta-corrects-input-tokens")
    scanner = ANTHROPIC.scanner(MESSAGES, usage=True)

    scanner.feed(case.response_body)

    assert scanner.usage is not None
    assert (scanner.usage.input_tokens, scanner.usage.output_tokens) == (61, 2)
