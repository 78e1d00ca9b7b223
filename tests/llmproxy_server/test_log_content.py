"""`log_content`: what was asked and answered, as text."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import llmproxy_cache
import pytest

from llmproxy_core import Exchange, Handler, Response
from llmproxy_core.chat import ChatRequest, Message, OpaquePart, Raw, ToolResult
from llmproxy_core.dialect import Operation
from llmproxy_core.outcome import KeptBody
from llmproxy_core.request import Request
from llmproxy_core.secret import Secret
from llmproxy_openai.dialect import OpenAIDialect
from llmproxy_server.access_log import LOGGER
from llmproxy_server.log_content import ContentText, as_text
from llmproxy_server.log_line import Entry, JsonLines
from llmproxy_server.log_redact import Redaction
from tests.llmproxy_server.edging import HELLO, STREAM, Processing, ask, post, processed, request
from tests.llmproxy_server.transporting import until
from tests.proxy import SECRET, Proxy, openai_at
from tests.rawclient import connected
from tests.recordings import Recording, openai_recordings
from tests.script import Script
from tests.upstream import Upstream, chat_chunk, completion, error, reply, stream

DIALECT = OpenAIDialect()
CONTENT = ContentText([DIALECT])
APIS = {api.name: api for api in DIALECT.apis}
ON = {"log": {"log_content": True, "max_content_bytes": 2000}}


class Texts(logging.Handler):
    """Keeps the content of what is logged, as a line would have it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = vars(record)
        form = JsonLines(Redaction([Secret(SECRET)]), max_content_bytes=2000)
        made = Entry(record.created, record.name, record.levelno, "exchange", told["fields"], content=told["content"])
        self.lines.append(json.loads(form.line(made)))


@pytest.fixture
def texts() -> Iterator[Texts]:
    logger, handler = logging.getLogger(LOGGER), Texts()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def told(texts: Texts, script: Script, *requests: bytes, **route: object) -> list[dict[str, Any]]:
    """The lines of *requests* that an upstream of *script* answers."""
    mapping = openai_at("", server=ON, token_env="KEY", route=route)
    async with Upstream(script) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            for each in requests:
                await ask(client, each, method=each.split(b" ", 1)[0].decode())
            await until(lambda: len(texts.lines) == len(requests))
    return texts.lines


# -- through a proxy -----------------------------------------------------------------------------------------------


async def test_off_nothing_of_it_is_in_a_line(texts: Texts) -> None:
    async with (
        Upstream(reply(completion("answer-text"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post({**HELLO, "messages": [{"role": "user", "content": "question-text"}]}))

    assert not {"query", "answer"} & set(texts.lines[0])
    assert "-text" not in str(texts.lines)


async def test_a_plain_answer_and_a_stream_read_the_same(texts: Texts) -> None:
    (plain,) = await told(texts, reply(completion("Hello")), post())
    texts.lines.clear()
    (streamed,) = await told(
        texts, stream(chat_chunk("Hel"), chat_chunk("lo"), chat_chunk(None, finish="stop")), post(STREAM)
    )

    assert (plain["query"], plain["answer"]) == ("user: Hello", "Hello")
    assert (streamed["query"], streamed["answer"]) == ("user: Hello", "Hello")
    assert "content_cut" not in plain | streamed


async def test_what_is_long_is_cut_and_marked(texts: Texts) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Frage? ü" * 1000}]}

    (line,) = await told(texts, reply(completion("Antwort! ö" * 1000)), post(body))

    assert line["query"].startswith("user: Frage? ü")
    assert line["answer"].startswith("Antwort! ö")
    assert line["content_cut"] == ["query", "answer"]
    for text in (line["query"], line["answer"]):
        assert text.endswith("…")
        assert 1990 < len(text.encode()) <= 2000


async def test_a_hit_of_the_cache_is_told_as_a_miss_is(texts: Texts) -> None:
    async with Upstream(stream(chat_chunk("Hello"), chat_chunk(None, finish="stop"))) as upstream:
        mapping = openai_at(upstream.base_url, server=ON, route={"processors": ["cache"]})
        mapping["processor"] = {"cache": {"type": "cache"}}
        async with Proxy(mapping, plugins=[llmproxy_cache]) as proxy, connected(proxy.port) as client:
            for body in (STREAM, STREAM, HELLO):
                await ask(client, post({**body, "temperature": 0}))
        await until(lambda: len(texts.lines) == 3)

    assert [line["cache"] for line in texts.lines] == ["miss", "hit", "hit"]
    assert [line["answer"] for line in texts.lines] == ["Hello"] * 3
    assert [line["query"] for line in texts.lines] == ["user: Hello"] * 3


async def test_the_answer_is_what_the_client_got(texts: Texts) -> None:
    async def shouting(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        response.rewrite(lambda channel: Upper())
        return response

    class Upper:
        def feed(self, text: str) -> str:
            return text.upper()

        def flush(self) -> str:
            return ""

    for script, body in (
        (reply(completion("Hello")), HELLO),
        (stream(chat_chunk("Hello"), chat_chunk(None, finish="stop")), STREAM),
    ):
        async with Upstream(script) as upstream:
            mapping = processed(openai_at(upstream.base_url, server=ON))
            async with Proxy(mapping, plugins=[Processing(shouting)]) as proxy, connected(proxy.port) as client:
                await ask(client, post(body))

    assert [line["answer"] for line in texts.lines] == ["HELLO", "HELLO"]


async def test_a_call_that_failed_tells_what_was_asked(texts: Texts) -> None:
    (line,) = await told(texts, reply(error("broken"), 500), post())

    assert line["query"] == "user: Hello"
    assert "answer" not in line


async def test_embeddings_tell_what_was_put_in_and_how_much_came_out(texts: Texts) -> None:
    vector = [0.25] * 1536
    answer = {
        "object": "list",
        "model": "m",
        "data": [{"index": 0, "embedding": vector}],
        "usage": {"prompt_tokens": 1},
    }
    (line,) = await told(texts, reply(answer), post({"model": "m", "input": ["some text"]}, "/v1/embeddings"))

    assert json.loads(line["query"]) == {"model": "m", "input": ["some text"]}
    assert json.loads(line["answer"])["data"] == [{"index": 0, "embedding": "[1536 numbers]"}]


async def test_a_model_list_has_an_answer_alone(texts: Texts) -> None:
    (line,) = await told(texts, reply({"object": "list", "data": [{"id": "m"}]}), request("GET", "/v1/models"))

    assert "query" not in line
    assert json.loads(line["answer"])["data"] == [{"id": "m"}]


async def test_an_opaque_call_is_named_and_not_looked_into(texts: Texts) -> None:
    body = post(b"\x00\xff" * 10, "/v1/files", type="application/octet-stream")
    (line,) = await told(texts, reply(b"secret-of-the-file"), body, operations=["chat", "opaque"])

    assert line["query"] == "[opaque]"
    assert "secret-of-the-file" not in str(line)


async def test_our_secrets_are_cut_out_of_content_too(texts: Texts) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": f"say {SECRET}" + "x" * 3000}]}
    (line,) = await told(texts, reply(completion(f"It is {SECRET}, Bearer abcdefghijklmnop")), post(body))

    assert line["answer"] == "It is ***, Bearer ***"
    assert SECRET not in str(line)


# -- as text -------------------------------------------------------------------------------------------------------

PARTS: list[tuple[object, str]] = [
    ("text", "text"),
    ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a b"),
    ([{"type": "image_url", "image_url": {"url": "https://user:pw@host/x.png?sig=credential"}}], "[image]"),
    ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}], "[image image/png]"),
    ([{"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}}], "[audio audio/wav]"),
    (
        [{"type": "file", "file": {"filename": "report.pdf", "file_data": "data:application/pdf;base64,aGVsbG8="}}],
        "[document report.pdf]",
    ),
]


@pytest.mark.parametrize(("content", "text"), PARTS, ids=range(len(PARTS)))
def test_parts_that_are_no_text_are_named(content: object, text: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    asked = Request(operation=Operation.CHAT, dialect=DIALECT, api=APIS["openai.chat"], body=body)

    assert CONTENT.query(asked) == f"user: {text}"


def test_tools_are_named_their_calls_and_results_told() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}
    body = {
        "model": "m",
        "tools": [
            {"type": "function", "function": {"name": "weather"}},
            {"type": "function", "function": {"name": "time"}},
        ],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How is\nBern?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
    }
    asked = Request(operation=Operation.CHAT, dialect=DIALECT, api=APIS["openai.chat"], body=json.dumps(body).encode())

    assert CONTENT.query(asked).splitlines() == [
        "[tools: weather, time]",
        "system: Be brief.",
        "user: How is",
        "Bern?",
        'assistant: [call weather: {"city":"Bern"}]',
        "tool: [result of call_1: rain]",
    ]


def test_a_request_of_a_processors_own_is_told_too() -> None:
    opaque = OpaquePart("web_search_call", Raw("x", b"{}"))
    asked = Request.of_chat(ChatRequest("m", (Message("tool", (ToolResult("c", (opaque,), name="search"),)),)))

    assert CONTENT.query(asked) == "tool: [result of search: [web_search_call]]"


def test_several_choices_have_their_numbers() -> None:
    body = completion("one")
    first = body["choices"][0]  # type: ignore[index]
    body["choices"] = [first, {**first, "index": 1, "message": {"role": "assistant", "content": "two"}}]

    assert CONTENT.answer(KeptBody("openai.chat", False, json.dumps(body).encode())) == "[0] one\n[1] two"


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_stream_that_was_broken_off_anywhere_tells_what_had_come(cut: int) -> None:
    whole = b"".join(b"data: %b\n\n" % json.dumps(chat_chunk(word)).encode() for word in ("One ", "two ", "three"))

    text = CONTENT.answer(KeptBody("openai.chat", True, whole[:cut]))

    assert "One two three".startswith(text)
    assert len(text) >= 4 * (cut // 240)


def test_what_is_not_the_protocol_ends_a_stream_and_costs_nothing_before_it() -> None:
    good = b"data: %b\n\n" % json.dumps(chat_chunk("good")).encode()

    assert CONTENT.answer(KeptBody("openai.chat", True, good * 1000 + b"data: {nonsense\n\n" + good)).startswith(
        "goodgood"
    )


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"messages":1}', b"[" * 100_000, b'{"a":"\\ud800"}'], ids=range(6)
)
def test_what_cannot_be_read_is_told_as_it_stands(body: bytes) -> None:
    asked = Request(operation=Operation.CHAT, dialect=DIALECT, api=APIS["openai.chat"], body=body)
    line = JsonLines(max_content_bytes=2000).line(
        Entry(
            1.0,
            "x",
            logging.INFO,
            "m",
            {},
            content=lambda: {
                "query": CONTENT.query(asked),
                "answer": CONTENT.answer(KeptBody("openai.chat", False, body)),
                "other": CONTENT.answer(KeptBody("nobody.knows", True, body)),
            },
        )
    )

    said = json.loads(line)
    if body:
        assert said["query"] == said["answer"] == said["other"] != ""
        assert said["query"].rstrip("…")[:8] in body.decode("utf-8", "replace")


@pytest.mark.parametrize("it", [it for it in openai_recordings() if it.protocol in ("chat", "completions")], ids=str)
def test_every_recorded_conversation_has_a_text(it: Recording) -> None:
    api = APIS[f"openai.{it.protocol}"]
    asked = Request(operation=Operation.CHAT, dialect=DIALECT, api=api, body=it.request_body)

    assert (
        CONTENT.query(asked).startswith(("[tools: ", "system: ", "user: ", "developer: "))
        or b'"prompt":[' in it.request_body
    )
    if it.response_status == 200:
        assert CONTENT.answer(KeptBody(api.name, it.is_event_stream, it.response_body))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"input": "text"}, '{"input":"text"}'),
        ({"data": [0.5] * 17}, '{"data":"[17 numbers]"}'),
        ({"data": [1, 2]}, '{"data":[1,2]}'),
        ({"b64": "A" * 257}, '{"b64":"[257 characters]"}'),
        ({"text": "A " * 257}, json.dumps({"text": "A " * 257}, separators=(",", ":"))),
    ],
)
def test_vectors_and_data_in_letters_are_counted(value: object, text: str) -> None:
    assert as_text(json.dumps(value).encode()) == text
