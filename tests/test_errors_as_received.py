"""A client that speaks as the provider does gets the provider's errors as they came, whatever they are."""

from __future__ import annotations

import gzip
import json
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import llmproxy_ollama
import pytest

from tests.exact import Seen, ask, post
from tests.proxy import SECRET, Proxy
from tests.speaking import PROVIDERS, Speaker, llm_at
from tests.upstream import Chunk, Cut, Head, Script, Upstream, reply

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral, llmproxy_ollama)
JSON_TYPE = "application/json"
HTML = b"<html>\n<body>503 Service Unavailable</body>\n</html>"
EVENT = b'event: error\r\ndata: {"error":{"message":"Slow down"}}\r\n\r\n'
SHAPES: list[tuple[str, int, str, bytes]] = [
    ("OpenAI", 429, "application/json; charset=utf-8", b'{ "error": {"message":"Slow","code":"x", "own" :1}}\n'),
    ("xAI", 400, JSON_TYPE, b'{"code":"bad","error":"It broke"}'),
    ("Google: an array", 400, JSON_TYPE, b'[{"error":{"code":400,"message":"No","status":"INVALID_ARGUMENT"}}\n]'),
    ("FastAPI", 422, JSON_TYPE, b'{"detail":[{"loc":["body","n"],"msg":"missing"}]}'),
    ("detail", 404, JSON_TYPE, b'{"detail":"Not Found"}'),
    ("problem", 409, "application/problem+json", b'{"title":"No","status":409}'),
    ("HTML", 503, "text/html; charset=utf-8", HTML),
    ("text", 500, "text/plain", b"upstream connect error"),
    ("no UTF-8", 502, "text/plain; charset=latin-1", b"\xff\xfe nothing"),
    ("nothing", 529, JSON_TYPE, b""),
    ("half of JSON", 500, JSON_TYPE, b'{"error":'),
    ("a number", 400, JSON_TYPE, b"17"),
    ("an event", 429, "text/event-stream", EVENT),
    ("a long one", 422, JSON_TYPE, json.dumps({"detail": "x" * 300_000}).encode()),
]  # fmt: skip
MODES = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


async def asked(script: Script, dialect: str, *, stream: bool) -> Seen:
    speaker = Speaker(dialect)
    route = {"path_prefix": "/", "target_llm": "it", "operations": ["chat"]}
    async with (
        Upstream(script) as upstream,
        Proxy({"llm": {"it": llm_at(dialect, upstream.url)}, "route": [route]}, plugins=PLUGINS) as proxy,
    ):
        path = speaker.path(stream=stream, model="a-model")
        return await post(proxy.url + path, speaker.body(stream=stream, model="a-model"), speaker.headers())


@MODES
@pytest.mark.parametrize(("status", "content_type", "body"), [it[1:] for it in SHAPES], ids=[it[0] for it in SHAPES])
@pytest.mark.parametrize("dialect", PROVIDERS)
async def test_status_type_and_bytes_are_the_providers(
    dialect: str, status: int, content_type: str, body: bytes, stream: bool
) -> None:
    seen = await asked(reply(body, status, {"content-type": content_type}), dialect, stream=stream)

    assert (seen.status, seen.body) == (status, body)
    assert seen.header("content-type") == (content_type if body else None)
    assert seen.header("x-content-type-options") == "nosniff"  # a page of the provider's is nothing to be run here


@pytest.mark.parametrize("body", [b'{"error":"it broke","more":{"n":1}}', HTML, b'{"error":{"message":"nested"}}'])
@pytest.mark.parametrize("status", [400, 503, 529])
async def test_ollamas_too(status: int, body: bytes) -> None:
    route = {"path_prefix": "/", "target_llm": "it", "operations": ["chat"]}
    async with Upstream(reply(body, status)) as upstream:
        llm = {"provider": "ollama", "base_url": upstream.url}
        async with Proxy({"llm": {"it": llm}, "route": [route]}, plugins=PLUGINS) as proxy:
            seen = await post(f"{proxy.url}/api/chat", b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')

    assert (seen.status, seen.body) == (status, body)


@MODES
@pytest.mark.parametrize("dialect", PROVIDERS)
async def test_our_key_is_cut_out_of_it(dialect: str, stream: bool) -> None:
    page = f"<html>{SECRET} is over its limit</html>".encode()

    seen = await asked(reply(page, 429, {"content-type": f"text/html; x={SECRET}"}), dialect, stream=stream)

    assert (seen.status, seen.body) == (429, page.replace(SECRET.encode(), b"***"))
    assert seen.header("content-type") == "text/html; x=***"


WRITTEN_OTHERWISE = {
    "another character set": ("application/json; charset=utf-16", f"bad key {SECRET}".encode("utf-16")),
    "NULs between": ("text/plain", f"bad key {SECRET}".encode("utf-16-le")),
    "escapes of JSON": (JSON_TYPE, f'{{"error":{{"message":"key \\u{ord(SECRET[0]):04x}{SECRET[1:]}"}}}}'.encode()),
    "entities of HTML": ("text/html", f"<p>key &#{ord(SECRET[0])};{SECRET[1:]}</p>".encode()),
    "a URL": ("text/plain", f"see ?key=%{ord(SECRET[0]):02x}{SECRET[1:]}".encode()),
}


@MODES
@pytest.mark.parametrize("how", WRITTEN_OTHERWISE)
async def test_what_shows_our_key_in_other_letters_is_told_in_our_own_words(how: str, stream: bool) -> None:
    content_type, body = WRITTEN_OTHERWISE[how]

    seen = await asked(reply(body, 400, {"content-type": content_type}), "openai", stream=stream)

    assert seen.status == 400
    assert json.loads(seen.body)["error"]["type"] == "invalid_request_error"
    assert SECRET[1:].encode() not in seen.body.replace(b"\0", b"")


@pytest.mark.parametrize("body", [HTML, b'{"detail":"Invalid API Key"}', b""])
@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("dialect", PROVIDERS)
async def test_what_is_said_of_our_key_is_told_to_nobody(dialect: str, status: int, body: bytes) -> None:
    seen = await asked(reply(body, status), dialect, stream=False)

    assert seen.status == 502
    assert b"operator" in seen.body
    assert not body or body not in seen.body


UNREADABLE: dict[str, Script] = {
    "compressed": reply(gzip.compress(SECRET.encode()), 500, {"content-encoding": "gzip"}),
    "cut": [Head(500, {"content-type": JSON_TYPE}, 100), Chunk(b'{"error":'), Cut()],
    "without end": reply(b"x" * (2 << 20), 500),
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_cannot_be_read_whole_is_told_in_our_own_words(what: str) -> None:
    seen = await asked(UNREADABLE[what], "openai", stream=False)

    error: dict[str, Any] = json.loads(seen.body)["error"]
    assert (seen.status, seen.header("content-type"), error["type"]) == (500, JSON_TYPE, "server_error")
    assert "status 500" in error["message"]


async def test_lists_and_embeddings_have_them_as_well() -> None:
    body = b'{"detail":"Not Found"}'
    async with Upstream(reply(body, 404)) as upstream:
        mapping = {"llm": {"it": llm_at("openai", upstream.url)}, "route": [{"path_prefix": "/", "target_llm": "it"}]}
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            listed = await ask("GET", f"{proxy.url}/v1/models")
            embedded = await post(f"{proxy.url}/v1/embeddings", b'{"model":"m","input":"a"}')

    assert [(seen.status, seen.body) for seen in (listed, embedded)] == [(404, body)] * 2
