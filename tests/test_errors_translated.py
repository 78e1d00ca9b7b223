"""
Whatever goes wrong at a provider, the clients of every protocol are told so in their own envelope.

Before the answer by a status and a body, in mid-stream by the error event of their protocol, after which nothing looks
complete. Of our key nothing is told, nor may the client take the fault for its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.exact import Seen, post
from tests.proxy import SECRET, Proxy
from tests.recordings import CHATS, Recording, recordings
from tests.speaking import PROVIDERS, SPEAKERS, Speaker, llm_at
from tests.upstream import Chunk, Cut, Head, Upstream, replay, reply

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
REFUSED = [it for it in recordings(fails=True) if it.protocol in CHATS and it.response_status >= 400]
BROKEN = [it for it in recordings(status=200, fails=True) if it.protocol in CHATS]
STREAMS = [it for it in recordings(status=200, stream=True, fails=False) if it.protocol in CHATS]
ABOUT_OUR_KEY = {401, 402, 403, 407}
MODES = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])

ODD: Mapping[str, object] = {
    "a string": {"error": "it broke"},
    "xAI": {"code": "bad", "error": "it broke"},
    "an array": [{"error": {"code": 500, "message": "it broke", "status": "INTERNAL"}}],
    "HTML": b"<html><body>502 Bad Gateway</body></html>",
    "nothing": b"",
    "a number": b"17",
    "FastAPI": {"detail": [{"loc": ["body", "model"], "msg": "it broke"}]},
    "OpenRouter": {"error": {"message": "it broke", "code": 500, "metadata": {"raw": "{}"}}},
    "Groq": {"error": {"message": "it broke", "type": "invalid_request_error", "failed_generation": "x"}},
}


def _openai(error: Mapping[str, Any]) -> tuple[str, bool]:
    inner = error["error"]
    return inner["message"], isinstance(inner.get("type"), str) or isinstance(inner.get("code"), str | int)


def _anthropic(error: Mapping[str, Any]) -> tuple[str, bool]:
    return error["error"]["message"], error["type"] == "error" and isinstance(error["error"]["type"], str)


def _gemini(error: Mapping[str, Any]) -> tuple[str, bool]:
    inner = error["error"]
    return inner["message"], isinstance(inner["code"], int) and inner["status"].isupper()


def _mistral(error: Mapping[str, Any]) -> tuple[str, bool]:
    if "detail" in error:
        return json.dumps(error["detail"]), True
    return str(error["message"]), error["object"] == "error" and isinstance(error["type"], str)


ENVELOPES: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, bool]]] = {
    "openai": _openai,
    "openai-responses": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "mistral": _mistral,
}


async def asked(proxy: Proxy, speaker: Speaker, *, stream: bool) -> Seen:
    path = speaker.path(stream=stream, model="a-model")
    return await post(proxy.url + path, speaker.body(stream=stream, model="a-model"), speaker.headers())


def mapping(dialect: str, base_url: str) -> dict[str, Any]:
    route = {"path_prefix": "/", "target_llm": "it", "operations": ["chat"]}
    return {"llm": {"it": llm_at(dialect, base_url)}, "route": [route]}


def message_of(seen: Seen, speaker: Speaker) -> str:
    """What the envelope says; it must be one of the client's protocol."""
    body = json.loads(seen.body)
    message, is_right = ENVELOPES[speaker.name](body[0] if isinstance(body, list) else body)
    assert is_right, (str(speaker), seen.body)
    assert message, (str(speaker), seen.body)
    assert SECRET.encode() not in seen.body
    return message


@MODES
@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_a_providers_refusal_is_told_in_the_clients_own_envelope(case: Recording, stream: bool) -> None:
    async with Upstream(replay(case)) as upstream, Proxy(mapping(case.dialect, upstream.url), plugins=PLUGINS) as proxy:
        for speaker in SPEAKERS:
            seen = await asked(proxy, speaker, stream=stream)
            is_key = case.response_status in ABOUT_OUR_KEY or b"API_KEY_INVALID" in case.response_body
            if is_key:
                assert seen.status == 502, (str(speaker), seen)
                assert "key" in message_of(seen, speaker)
                assert seen.header("x-should-retry") == "false"
                continue
            if speaker.name == case.dialect:
                assert (seen.status, seen.body) == (case.response_status, case.response_body)
                continue
            told = message_of(seen, speaker)
            assert told.rpartition(": ")[2][:20].encode() in case.response_body or not case.response_body
            assert seen.status // 100 == case.response_status // 100, (str(speaker), seen)
            assert seen.whole


@pytest.mark.parametrize("dialect", PROVIDERS)
@pytest.mark.parametrize("shape", ODD)
async def test_an_error_of_any_shape_has_words_for_every_client(shape: str, dialect: str) -> None:
    async with (
        Upstream(reply(ODD[shape], 500)) as upstream,
        Proxy(mapping(dialect, upstream.url), plugins=PLUGINS) as proxy,
    ):
        for speaker in SPEAKERS:
            seen = await asked(proxy, speaker, stream=False)
            assert seen.status == 500, (str(speaker), seen)
            if speaker.name == dialect:  # as received: its own clients know what their provider says
                assert seen.body == _bytes(ODD[shape]), str(speaker)
            else:
                assert message_of(seen, speaker)


def _bytes(shape: object) -> bytes:
    return shape if isinstance(shape, bytes) else json.dumps(shape).encode()


@pytest.mark.parametrize("dialect", PROVIDERS)
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"retry-after": "7"}, "7"), ({"retry-after-ms": "2500"}, "3"), ({"retry-after": "0"}, "0")],
)
async def test_how_long_to_wait_is_told_to_every_client(dialect: str, headers: dict[str, str], wait_s: str) -> None:
    body = {"error": {"message": "Slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
    async with (
        Upstream(reply(body, 429, headers)) as upstream,
        Proxy(mapping(dialect, upstream.url), plugins=PLUGINS) as proxy,
    ):
        for speaker in SPEAKERS:
            seen = await asked(proxy, speaker, stream=True)
            assert (seen.status, seen.header("retry-after")) == (429, wait_s), str(speaker)


@pytest.mark.parametrize("speaker", SPEAKERS, ids=str)
@pytest.mark.parametrize("case", BROKEN, ids=str)
async def test_a_stream_that_the_provider_breaks_off_ends_in_an_error(case: Recording, speaker: Speaker) -> None:
    async with (
        Upstream(replay(case, tuple(range(5, 100_000, 37)))) as upstream,
        Proxy(mapping(case.dialect, upstream.url), plugins=PLUGINS) as proxy,
    ):
        seen = await asked(proxy, speaker, stream=True)

    if seen.status != 200:  # nothing had been said: the client's SDK may try again
        assert message_of(seen, speaker)
        return
    assert not seen.whole
    protocol = "gemini-array" if speaker.array else speaker.name
    body = seen.body + b"]" if speaker.array and not seen.body.rstrip().endswith(b"]") else seen.body
    assert check_stream(protocol, body, failed=True, strict=speaker.name != case.dialect) == [], seen.body


@pytest.mark.parametrize("case", STREAMS[::3], ids=str)
async def test_a_stream_that_is_cut_anywhere_looks_complete_to_nobody(case: Recording) -> None:
    places = [len(case.response_body) * part // 7 for part in range(1, 7)]
    async with Upstream() as upstream, Proxy(mapping(case.dialect, upstream.url), plugins=PLUGINS) as proxy:
        for speaker in (it for it in SPEAKERS if not (it.array and case.dialect == "gemini")):
            for place in places:
                head = Head(200, {"content-type": "text/event-stream"})
                upstream.then([head, Chunk(case.response_body[:place]), Cut()])
                seen = await asked(proxy, speaker, stream=True)
                if seen.status != 200:
                    assert message_of(seen, speaker)
                    continue
                assert not seen.whole, (str(speaker), place)
                protocol = "gemini-array" if speaker.array else speaker.name
                wrong = check_stream(protocol, seen.body, failed=True, strict=False)
                assert wrong == [], (str(speaker), place, seen.body)
