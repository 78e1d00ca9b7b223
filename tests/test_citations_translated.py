"""A citation arrives at the words that it is of, whatever the provider counts its places in."""

from __future__ import annotations

import json
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core.chat import ChatReply, TextPart
from llmproxy_core.testing.grammar import check_stream
from tests.exact import post
from tests.proxy import Proxy
from tests.recordings import recording
from tests.speaking import SPEAKERS, Speaker, llm_at
from tests.upstream import EVENT_STREAM, Chunk, End, Head, Step, Upstream, reply

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
CLIENTS = [it for it in SPEAKERS if it.name in {"openai", "openai-responses", "mistral", "gemini"}]


def streamed(body: bytes) -> list[Step]:
    return [Head(200, EVENT_STREAM), Chunk(body), End()]


def events(*members: dict[str, Any]) -> list[Step]:
    lines = (f"event: {it['type']}\ndata: {json.dumps(it)}\n\n" for it in members)
    return streamed("".join(lines).encode())


# -- Anthropic: a citation is of a whole block, and comes before its text ---------------------------------------------


def page(url: str) -> dict[str, Any]:
    return {
        "type": "web_search_result_location",
        "url": url,
        "title": "T",
        "encrypted_index": "e",
        "cited_text": "as the page has it",
    }


BLOCKS = [
    ("Voilà : ", None),
    ("Zürich s’étend", page("http://z")),
    (" \N{GRINNING FACE} et ", None),
    ("Köln vieillit", page("http://k")),
    (".", None),
]
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
USAGE = {"input_tokens": 1, "output_tokens": 1}


def anthropic(*, stream: bool) -> list[Step]:
    if not stream:
        content = [{"type": "text", "text": text, "citations": [cited] if cited else None} for text, cited in BLOCKS]
        return reply({**MESSAGE, "content": content, "stop_reason": "end_turn", "usage": USAGE})
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": USAGE}}
    ]
    for index, (text, cited) in enumerate(BLOCKS):
        deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": it} for it in (text[:3], text[3:]) if it]
        if cited:
            deltas.insert(0, {"type": "citations_delta", "citation": cited})
        begun: dict[str, Any] = {"type": "text", "text": ""}
        told.append({"type": "content_block_start", "index": index, "content_block": begun})
        told += [{"type": "content_block_delta", "index": index, "delta": it} for it in deltas]
        told.append({"type": "content_block_stop", "index": index})
    told.append({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE})
    return events(*told, {"type": "message_stop"})


# -- Responses: places count in each message's own text ----------------------------------------------------------------


def link(start: int, end: int) -> dict[str, Any]:
    return {"type": "url_citation", "url": "http://x", "title": "T", "start_index": start, "end_index": end}


MESSAGES = [("Voir Zürich. ", link(5, 11)), ("Puis Köln.", link(5, 9))]
RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}
SPENT = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


def message(index: int) -> dict[str, Any]:
    text, cited = MESSAGES[index]
    content = [{"type": "output_text", "text": text, "annotations": [cited]}]
    return {"id": f"m{index}", "type": "message", "role": "assistant", "status": "completed", "content": content}


def responses(*, stream: bool) -> list[Step]:
    items = [message(index) for index in range(len(MESSAGES))]
    whole = {**RESPONSE, "status": "completed", "output": items, "usage": SPENT}
    if not stream:
        return reply(whole)
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "output": [], "usage": None}}
    ]
    for index, (text, cited) in enumerate(MESSAGES):
        place = {"item_id": f"m{index}", "output_index": index, "content_index": 0}
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        begun = {**message(index), "status": "in_progress", "content": []}
        told += [
            {"type": "response.output_item.added", "output_index": index, "item": begun},
            {"type": "response.content_part.added", **place, "part": part},
            {"type": "response.output_text.delta", **place, "delta": text},
            {"type": "response.output_text.annotation.added", **place, "annotation_index": 0, "annotation": cited},
            {"type": "response.output_text.done", **place, "text": text},
            {"type": "response.content_part.done", **place, "part": message(index)["content"][0]},
            {"type": "response.output_item.done", "output_index": index, "item": message(index)},
        ]
    told.append({"type": "response.completed", "response": whole})
    return events(*({**it, "sequence_number": number} for number, it in enumerate(told)))


def cited(got: ChatReply) -> list[str]:
    """The words that are cited."""
    parts = [part for part in got.choices[0].content if isinstance(part, TextPart)]
    return [part.text[slice(it.start, it.end)] for part in parts for it in part.citations]


async def asked(client: Speaker, llm: str, script: list[Step], *, stream: bool) -> ChatReply:
    async with Upstream(script) as upstream:
        mapping = {
            "llm": {"it": llm_at(llm, upstream.url)},
            "route": [{"path_prefix": "/", "target_llm": "it", "operations": ["chat"]}],
        }
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            path = client.path(stream=stream, model="m")
            seen = await post(proxy.url + path, client.body(stream=stream, model="m"), client.headers())
    assert (seen.status, seen.whole) == (200, True), seen.body
    if stream:
        assert check_stream("gemini-array" if client.array else client.name, seen.body) == []
    return client.read(seen.body, stream=stream)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_what_a_block_of_anthropics_cites_is_all_of_the_block(client: Speaker, stream: bool) -> None:
    got = await asked(client, "anthropic", anthropic(stream=stream), stream=stream)

    assert cited(got) == ["Zürich s’étend", "Köln vieillit"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("client", [it for it in CLIENTS if it.name != "openai-responses"], ids=str)
async def test_places_in_a_later_message_are_places_in_the_whole_text(client: Speaker, stream: bool) -> None:
    got = await asked(client, "openai-responses", responses(stream=stream), stream=stream)

    assert cited(got) == ["Zürich", "Köln"]


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_a_recorded_search_cites_what_it_found(client: Speaker) -> None:
    script = streamed(recording("anthropic/messages-stream-web-search-tool-anthropic-streams-with-0").response_body)
    got = await asked(client, "anthropic", script, stream=True)

    assert cited(got) == ["Bitcoin was trading at $87,906 on January 1, 2026"]
