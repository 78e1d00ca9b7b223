"""Real traffic with Mistral: understood, and written again byte by byte."""

import json

import attrs
import pytest
from llmproxy_mistral import MistralDialect
from llmproxy_mistral.paths import CHAT, EMBEDDINGS

from llmproxy_core.chat import ReasoningPart, ToolCall
from llmproxy_core.errors import UpstreamError
from llmproxy_core.headers import Headers
from llmproxy_core.reply_events import Assembler
from llmproxy_core.testing.grammar import check_stream
from tests.recordings import Recording, recordings

MISTRAL = MistralDialect()
CHATS = recordings(provider="mistral", protocol="chat")
PLAIN = [it for it in CHATS if it.response_status == 200 and not it.is_event_stream]
STREAMS = [it for it in CHATS if it.response_status == 200 and it.is_event_stream]
FAILURES = [it for it in CHATS if it.response_status >= 400]


def frames(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def assembled(recording: Recording) -> Assembler:
    reader, assembler = MISTRAL.reader(CHAT), Assembler()
    for frame in [*reader.feed(recording.response_body), *reader.end()]:
        assembler.feed(frame.events)
    return assembler


@pytest.mark.parametrize("recording", CHATS, ids=str)
def test_a_request_is_understood_to_the_last_member_and_keeps_its_bytes(recording: Recording) -> None:
    chat = MISTRAL.read_chat(CHAT, recording.request_body)

    assert chat.extra == {}
    assert MISTRAL.write_chat(CHAT, chat) == recording.request_body
    anew = MISTRAL.write_chat(CHAT, attrs.evolve(chat, origin=None))
    assert attrs.evolve(MISTRAL.read_chat(CHAT, anew), origin=None) == attrs.evolve(chat, origin=None)


@pytest.mark.parametrize("recording", PLAIN, ids=str)
def test_an_answer_keeps_its_bytes_and_its_facts(recording: Recording) -> None:
    reply = MISTRAL.read_reply(CHAT, recording.response_body)
    head = MISTRAL.scan_reply(CHAT, recording.response_body)

    assert MISTRAL.write_reply(CHAT, reply) == recording.response_body
    assert (head.usage, head.model, head.id) == (reply.usage, reply.model, reply.id)
    assert reply.usage is not None


@pytest.mark.parametrize("recording", STREAMS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_stream_is_copied_and_understood_however_it_is_cut(recording: Recording, size: int) -> None:
    body = recording.response_body
    scanner, reader = MISTRAL.scanner(CHAT, usage=False), MISTRAL.reader(CHAT)
    writer = MISTRAL.writer(CHAT, usage=False)

    copied = b"".join(scanner.feed(piece) for piece in frames(body, size)) + scanner.end()
    read = [frame for piece in frames(body, size) for frame in reader.feed(piece)] + reader.end()
    written = b"".join(writer.write(frame.events, frame) for frame in read)

    assert copied == written == body.rstrip(b"\n") + b"\n\n"
    assert scanner.done
    assert scanner.usage == assembled(recording).reply().usage
    assert check_stream("mistral", body, strict=False) == []


def test_thinking_comes_in_parts_of_the_content_and_none_is_lost() -> None:
    (recording,) = (it for it in STREAMS if "thinking" in it.name)

    (choice,) = assembled(recording).reply().choices
    (thought,) = (part for part in choice.content if isinstance(part, ReasoningPart))

    assert (thought.provider, thought.member) == ("mistral", "thinking")
    assert len(thought.text) > 400
    assert choice.text


def test_a_call_comes_whole_with_the_end_and_the_usage() -> None:
    (recording,) = (it for it in STREAMS if "bool" in it.name)

    reply = assembled(recording).reply()

    assert reply.choices[0].content == (ToolCall("EPXkQWLC5", "return_bool", '{"value": true}'),)
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (65, 19)


@pytest.mark.parametrize("recording", FAILURES, ids=str)
def test_an_error_is_understood_and_reaches_mistrals_clients_as_it_was(recording: Recording) -> None:
    error = MISTRAL.read_error(recording.response_status, Headers(recording.response_headers), recording.response_body)

    assert isinstance(error, UpstreamError)
    assert error.upstream_status == recording.response_status
    if recording.response_status == 401:
        assert error.code == "upstream_auth"
    else:
        assert error.message
        assert MISTRAL.write_error(error, "r") == recording.response_body


def test_recorded_embeddings_are_understood() -> None:
    (recording,) = recordings(provider="mistral", protocol="embeddings")

    asked = MISTRAL.read_embeddings(EMBEDDINGS, recording.request_body)
    reply = MISTRAL.read_embeddings_reply(EMBEDDINGS, recording.response_body)

    assert asked.inputs == ("Tell me a joke about OpenTelemetry",)
    assert list(reply.vectors[0]) == json.loads(recording.response_body)["data"][0]["embedding"]
