"""Real traffic: read and written byte for byte, the same however it is cut, and translated from and to OpenAI."""

import json
from collections.abc import Iterable, Sequence

import attrs
import pytest
from llmproxy_gemini import GeminiDialect
from llmproxy_gemini.apis import COUNT, EMBED_BATCH, GENERATE, MODELS, STREAM, STREAM_ARRAY

from llmproxy_core import Api, Frame, Headers, Translation, UpstreamAuthError, UpstreamError
from llmproxy_core.chat import ChatEvent, ChatReply, End, Failed, Part, TextPart, ToolCall
from llmproxy_core.reply_events import Assembler, events_of
from llmproxy_core.testing.grammar import check_stream
from llmproxy_openai import OpenAIDialect
from tests.recordings import Recording, recordings

GEMINI, OPENAI = GeminiDialect(), OpenAIDialect()
CHAT = OPENAI.apis[0]
ASKED = [it for it in recordings(provider="gemini") if it.protocol in {"generate", "streamGenerate", "countTokens"}]
ANSWERED = [it for it in ASKED if it.response_status == 200 and it.protocol != "countTokens"]
PLAIN = [it for it in ANSWERED if it.protocol == "generate"]
STREAMS = [it for it in ANSWERED if it.protocol == "streamGenerate"]
FAILED = [it for it in recordings(provider="gemini") if it.response_status >= 400]
FROM_OPENAI = [it for it in recordings(protocol="chat") if it.response_status == 200]
SIZES = (1, 2, 3, 7, 64, 1000, 1 << 20)
each = pytest.mark.parametrize


def api_of(case: Recording) -> Api:
    if case.protocol == "countTokens":
        return COUNT
    if case.protocol == "generate":
        return GENERATE
    return STREAM if case.is_event_stream else STREAM_ARRAY


def pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[place : place + size] for place in range(0, len(stream), size)]


def read(api: Api, stream: bytes, size: int = 1 << 20) -> list[Frame]:
    reader = GEMINI.reader(api)
    return [frame for piece in pieces(stream, size) for frame in reader.feed(piece)] + reader.end()


def events(frames: Iterable[Frame]) -> list[ChatEvent]:
    return [event for frame in frames for event in frame.events]


def reply_of(found: Sequence[ChatEvent]) -> ChatReply:
    assembler = Assembler()
    assembler.feed(found)
    return assembler.reply()


def said(reply: ChatReply) -> list[Part]:
    """The parts of an answer, neighbouring texts as one."""
    parts: list[Part] = []
    for part in reply.choices[0].content:
        last = parts[-1] if parts else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            signature = last.signature or part.signature
            parts[-1] = TextPart(last.text + part.text, last.citations + part.citations, signature=signature)
        elif isinstance(part, ToolCall):
            parts.append(attrs.evolve(part, arguments=json.dumps(json.loads(part.arguments)), extra={}))
        else:
            parts.append(part)
    return [part for part in parts if part != TextPart("")]


@each("case", ASKED, ids=str)
def test_a_request_is_written_as_it_was_read(case: Recording) -> None:
    api = api_of(case)

    chat = GEMINI.read_chat(api, case.request_body)

    assert GEMINI.write_chat(api, chat) == case.request_body


@each("case", PLAIN, ids=str)
def test_an_answer_is_written_as_it_was_read(case: Recording) -> None:
    reply = GEMINI.read_reply(GENERATE, case.response_body)

    assert GEMINI.write_reply(GENERATE, reply) == case.response_body


@each("case", STREAMS, ids=str)
@each("size", SIZES)
def test_a_stream_is_read_alike_however_it_is_cut(case: Recording, size: int) -> None:
    api = api_of(case)
    whole = read(api, case.response_body)

    frames = read(api, case.response_body, size)

    assert events(frames) == events(whole)
    assert b"".join(frame.raw for frame in frames) == case.response_body
    assert isinstance(events(frames)[-1], End)


@each("case", STREAMS, ids=str)
@each("size", SIZES)
def test_a_stream_is_copied_byte_for_byte(case: Recording, size: int) -> None:
    api = api_of(case)
    scanner, writer = GEMINI.scanner(api, usage=True), GEMINI.writer(api, usage=True)

    copied = b"".join(map(scanner.feed, pieces(case.response_body, size))) + scanner.end()
    written = b"".join(writer.write(frame.events, frame) for frame in read(api, case.response_body, size))

    assert copied == written == case.response_body
    assert scanner.done
    assert scanner.error is None


@each("case", STREAMS, ids=str)
def test_what_is_scanned_is_what_is_read(case: Recording) -> None:
    api = api_of(case)
    scanner = GEMINI.scanner(api, usage=True)
    scanner.feed(case.response_body)
    scanner.end()

    reply = reply_of(events(read(api, case.response_body)))

    assert scanner.usage == reply.usage
    assert (scanner.model, scanner.id) == (reply.model, reply.id)
    finish = reply.choices[0].finish
    assert finish is not None
    assert scanner.finish == (finish.word,)


@each("case", STREAMS, ids=str)
def test_a_stream_without_its_end_is_not_complete(case: Recording) -> None:
    """There is no word for the end: only the finish of each candidate tells a whole answer from a cut one."""
    api = api_of(case)
    cut = case.response_body[: case.response_body.rfind(b'"finishReason"')]

    found = events(read(api, cut))
    scanner = GEMINI.scanner(api, usage=True)
    scanner.feed(cut)
    scanner.end()

    assert not any(isinstance(event, End) for event in found)
    assert not scanner.done


@each("case", PLAIN, ids=str)
def test_a_plain_answer_and_its_stream_say_the_same(case: Recording) -> None:
    reply = GEMINI.read_reply(GENERATE, case.response_body)

    for api in (STREAM, STREAM_ARRAY):
        writer = GEMINI.writer(api, usage=True)
        stream = b"".join(writer.write([event], None) for event in events_of(reply))
        again = reply_of(events(read(api, stream)))

        assert said(again) == said(reply)
        assert again.usage == reply.usage
        assert (again.id, again.model) == (reply.id, reply.model)
        grammar = "gemini" if api is STREAM else "gemini-array"
        assert not check_stream(grammar, stream)


# -- from and to OpenAI --------------------------------------------------------------------------------------------


@each("case", FROM_OPENAI, ids=str)
@each("model", ["gemini-2.5-flash", "gemini-3-pro-preview"])
def test_a_request_of_openai_says_what_gemini_takes(case: Recording, model: str) -> None:
    chat = attrs.evolve(OPENAI.read_chat(CHAT, case.request_body), model=model)
    told = Translation(llm="gemini", drops=True)

    body = json.loads(GEMINI.write_chat(GENERATE, chat, told))

    known = {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig"}
    assert body.keys() <= known
    assert body["contents"]
    assert all(content["parts"] for content in body["contents"])
    assert {content["role"] for content in body["contents"]} <= {"user", "model"}
    again = GEMINI.read_chat(GENERATE, json.dumps(body).encode())
    asked = [message.text for message in chat.messages if message.role == "user" and message.text]
    # A prompt of the system alone is what somebody says here.
    wanted = asked or [message.text for message in chat.messages]
    assert [message.text for message in again.messages if message.role == "user" and message.text] == wanted


@each("case", [it for it in FROM_OPENAI if it.is_event_stream], ids=str)
def test_a_stream_of_openai_becomes_one_of_gemini(case: Recording) -> None:
    reader = OPENAI.reader(CHAT)
    frames = [*reader.feed(case.response_body), *reader.end()]
    whole = Assembler()
    whole.feed(events(frames))

    for api, grammar in ((STREAM, "gemini"), (STREAM_ARRAY, "gemini-array")):
        writer = GEMINI.writer(api, usage=True)
        stream = b"".join(writer.write(frame.events, None) for frame in frames)
        again = reply_of(events(read(api, stream)))

        mistakes = check_stream(grammar, stream)
        if whole.reply().usage is None:
            mistakes = [it for it in mistakes if "usageMetadata" not in str(it) and "promptTokenCount" not in str(it)]
        assert not mistakes
        assert again.text == whole.reply().text
        spent = whole.reply().usage  # a tier is a word of its own provider
        assert again.usage == (None if spent is None else attrs.evolve(spent, service_tier=None))


@each("case", PLAIN, ids=str)
def test_a_plain_answer_becomes_one_of_openai(case: Recording) -> None:
    reply = GEMINI.read_reply(GENERATE, case.response_body)

    body = json.loads(OPENAI.write_reply(CHAT, reply))

    (choice,) = body["choices"]
    calls = [part for part in reply.choices[0].content if isinstance(part, ToolCall)]
    assert (choice["message"]["content"] or "") == reply.text
    assert [call["function"]["name"] for call in choice["message"].get("tool_calls", [])] == [it.name for it in calls]
    assert choice["finish_reason"] == ("tool_calls" if calls else choice["finish_reason"])
    counts = json.loads(case.response_body)["usageMetadata"]
    thoughts = counts.get("thoughtsTokenCount", 0)
    assert body["usage"]["completion_tokens"] == counts.get("candidatesTokenCount", 0) + thoughts
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == thoughts
    assert body["usage"]["total_tokens"] == counts["totalTokenCount"]


@each("case", STREAMS, ids=str)
def test_a_stream_becomes_one_of_openai(case: Recording) -> None:
    api = api_of(case)
    frames = read(api, case.response_body)
    writer = OPENAI.writer(CHAT, usage=True)

    stream = b"".join(writer.write(frame.events, None) for frame in frames)

    grammar_usage = any("usage" in type(event).__name__.lower() for event in events(frames))
    assert not check_stream("openai", stream, usage=grammar_usage)


# -- the rest ------------------------------------------------------------------------------------------------------


@each("case", FAILED, ids=str)
def test_errors_are_read_and_given_back_as_they_came(case: Recording) -> None:
    error = GEMINI.read_error(case.response_status, Headers(case.response_headers), case.response_body)

    if b"API_KEY_INVALID" in case.response_body:
        assert isinstance(error, UpstreamAuthError)
        assert error.status == 502
        assert b"API key not valid" not in GEMINI.write_error(error, "r-1")
    else:
        assert type(error) is UpstreamError
        assert error.status == case.response_status
        assert GEMINI.write_error(error, "r-1") == case.response_body


def test_a_count_is_read() -> None:
    (case,) = (it for it in recordings(provider="gemini", protocol="countTokens") if it.response_status == 200)

    assert GEMINI.read_count(COUNT, case.response_body) == 5


def test_embeddings_are_read() -> None:
    (case,) = recordings(provider="gemini", protocol="gembed")

    asked = GEMINI.read_embeddings(EMBED_BATCH, case.request_body)
    reply = GEMINI.read_embeddings_reply(EMBED_BATCH, case.response_body)

    assert asked.inputs == ("Hello, world!",)
    assert (asked.task, asked.dimensions) == ("RETRIEVAL_QUERY", 768)
    assert [len(vector) for vector in reply.vectors] == [768]
    assert json.loads(GEMINI.write_embeddings(EMBED_BATCH, asked)) == json.loads(case.request_body)
    assert json.loads(GEMINI.write_embeddings_reply(EMBED_BATCH, reply, asked)) == json.loads(case.response_body)


def test_a_list_of_models_is_read() -> None:
    (case,) = recordings(provider="gemini", protocol="models")

    models = GEMINI.read_models(MODELS, case.response_body)

    assert models[0].id == "gemini-2.5-flash"
    assert (models[0].name, models[0].input_limit, models[0].output_limit) == ("Gemini 2.5 Flash", 1_048_576, 65_536)
    assert len(models) == len(json.loads(case.response_body)["models"])


def test_an_error_in_a_stream_is_told_after_what_was_said() -> None:
    (case,) = (it for it in STREAMS if "web-search" in it.name)
    half = case.response_body[: case.response_body.index(b"\r\n\r\n") + 4]
    failure = b'data: {"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}\r\n\r\n'

    found = events(read(STREAM, half + failure))

    failed = found[-1]
    assert isinstance(failed, Failed)
    assert (failed.status, failed.error_type) == (503, "UNAVAILABLE")
    assert reply_of(found).text.startswith("### Weather")
