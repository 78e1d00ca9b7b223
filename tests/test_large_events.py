"""Events with a picture or a document in them: they pass, as a plain answer of that size does."""

from __future__ import annotations

import json
from typing import Any

import llmproxy_anthropic
import pytest

from llmproxy_core import End, Exchange, Handler, Response, UsageSource
from tests.answers import chat_chunk, usage_chunk
from tests.exact import post
from tests.llmproxy_server.edging import Processing
from tests.proxy import Proxy
from tests.resilience.flocks import QUICK
from tests.script import Step
from tests.speaking import Speaker, llm_at
from tests.upstream import Chunk, Head, Upstream
from tests.upstream import End as Complete

FILE = "A" * 5_000_000  # as a large picture has
SPLIT_BYTES = 16 << 10


def events(*payloads: dict[str, Any], named: bool = True) -> bytes:
    return b"".join(
        (b"event: %b\n" % payload["type"].encode() if named else b"") + b"data: %b\n\n" % json.dumps(payload).encode()
        for payload in payloads
    )


def chat() -> bytes:
    """As servers behind LiteLLM and OpenRouter send a picture."""
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{FILE}"}}
    whole: Any = chat_chunk("", finish="stop")
    whole["choices"][0]["delta"]["images"] = [picture]
    return events(chat_chunk("here"), whole, usage_chunk(), named=False) + b"data: [DONE]\n\n"


def responses() -> bytes:
    """OpenAI's tool `image_generation`: the event that ends the item has the picture, and the last one once more."""
    response = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": []}
    item = {"id": "ig", "type": "image_generation_call", "status": "completed", "result": FILE}
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    return events(
        {"type": "response.created", "sequence_number": 0, "response": response},
        {
            "type": "response.output_item.added",
            "sequence_number": 1,
            "output_index": 0,
            "item": item | {"status": "in_progress", "result": None},
        },
        {"type": "response.output_item.done", "sequence_number": 2, "output_index": 0, "item": item},
        {
            "type": "response.completed",
            "sequence_number": 3,
            "response": response | {"status": "completed", "output": [item], "usage": usage},
        },
    )


def messages() -> bytes:
    """Anthropic's tool `web_fetch`: a block that begins with the document."""
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": FILE}}
    result = {"type": "web_fetch_result", "url": "http://x", "content": document}
    block = {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": result}
    message: Any = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    return events(
        {"type": "message_start", "message": message | {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    )


STREAMS = {"openai": chat, "openai-responses": responses, "anthropic": messages}


async def watched(exchange: Exchange, call_next: Handler) -> Response:
    response = await call_next(exchange)
    response.watch(lambda channel: None)
    return response


@pytest.mark.parametrize("way", ["copied", "watched", "tried again"])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_large_event_passes_as_it_came(name: str, way: str) -> None:
    speaker, sent = Speaker(name), STREAMS[name]()
    cut = [Chunk(sent[at : at + SPLIT_BYTES]) for at in range(0, len(sent), SPLIT_BYTES)]
    script: list[Step] = [Head(), *cut, Complete()]
    asked = speaker.body(stream=True, model="m")

    async with Upstream(script) as upstream:
        llm = llm_at(name, upstream.url, **({"retries": QUICK} if way == "tried again" else {}))
        route = {"path_prefix": "/", "target_llm": "a", "processors": ["p"] if way == "watched" else []}
        config = {"llm": {"a": llm}, "processor": {"p": {"type": "test"}}, "route": [route]}
        async with Proxy(config, plugins=[Processing(watched), llmproxy_anthropic]) as proxy:
            seen = await post(proxy.url + speaker.path(stream=True, model="m"), asked, speaker.headers())
            outcome = await proxy.outcome()

    assert (seen.status, seen.whole, outcome.end, outcome.error) == (200, True, End.COMPLETED, None)
    assert seen.body == sent
    assert outcome.usage is not None
    assert (outcome.usage.output_tokens, outcome.usage.source) == (3, UsageSource.REPORTED)
