"""What is refused is named by its place in the client's own request, also where a prompt stands apart from the list."""

from __future__ import annotations

import json
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import pytest

from tests.exact import post
from tests.proxy import Proxy
from tests.speaking import Speaker, llm_at
from tests.upstream import Upstream, reply

VIDEO = {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}
DOCUMENT = {"type": "document", "source": {"type": "url", "url": "http://x/a.pdf"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
GEMINI = ("gemini", "openai", {"contents": [{"role": "user", "parts": [{"text": "q"}, VIDEO]}]})
ANTHROPIC = ("anthropic", "openai", {"messages": [{"role": "user", "content": [DOCUMENT]}]})
RESPONSES = ("openai-responses", "anthropic", {"input": [{"role": "user", "content": [SOUND]}]})


async def refused(client: str, llm: str, members: dict[str, Any]) -> str:
    """The body of the error that a request with *members* is answered with."""
    speaker = Speaker(client)
    async with Upstream(reply({})) as upstream:
        mapping = {"llm": {"it": llm_at(llm, upstream.url)}, "route": [{"path_prefix": "/", "target_llm": "it"}]}
        async with Proxy(mapping, plugins=(llmproxy_anthropic, llmproxy_gemini)) as proxy:
            body = json.loads(speaker.body(stream=False, model="m")) | members
            path = speaker.path(stream=False, model="m")
            seen = await post(proxy.url + path, json.dumps(body).encode(), speaker.headers())
    assert seen.status == 400, seen.body
    return seen.body.decode()


@pytest.mark.parametrize(
    ("asked", "prompt", "place"),
    [
        (GEMINI, {}, "contents[0].parts[1]"),
        (GEMINI, {"systemInstruction": {"parts": [{"text": "S"}]}}, "contents[0].parts[1]"),
        (GEMINI, {"system_instruction": {"parts": [{"text": "S"}]}}, "contents[0].parts[1]"),
        (GEMINI, {"systemInstruction": {"parts": [VIDEO]}}, "systemInstruction"),
        (ANTHROPIC, {}, "messages[0].content[0]"),
        (ANTHROPIC, {"system": "S"}, "messages[0].content[0]"),
        (ANTHROPIC, {"system": [{"type": "text", "text": "S"}]}, "messages[0].content[0]"),
        (RESPONSES, {}, "input[0].content[0]"),
        (RESPONSES, {"instructions": "S"}, "input[0].content[0]"),
    ],
)
async def test_a_place_is_that_in_the_clients_request(
    asked: tuple[str, str, dict[str, Any]], prompt: dict[str, Any], place: str
) -> None:
    client, llm, members = asked

    assert f"('{place}')" in await refused(client, llm, members | prompt)
