"""A question is rewritten in every protocol, and in its own nothing else of the request changes by a byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import llmproxy_anthropic
import llmproxy_enhance_query
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core.chat import Finish, Finished, FinishReason, Message, TextDelta, TextPart
from tests.answering import Answering
from tests.exact import post
from tests.proxy import Proxy
from tests.speaking import SPEAKERS, Speaker, llm_at
from tests.upstream import Upstream

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral, llmproxy_enhance_query)
OLD = '"caf\\u00e9 \\ud83d\\ude42?"'
"""The question in JSON; never as we would write it."""
NEW = 'Say "déjà vu" \\ in\tone line\n🙂'
MARK = "@the text@"

BODIES: Mapping[str, tuple[str, ...]] = {
    "openai": (
        (
            ' {"own":{"b":1.50,"a":[ ]}, "messages" : [ {"role":"system","content":"x \\/ y"} ,\n {"role" : "user" , '
            '"content" : [ {"own":1e5, "text" : @the text@ , "type":"text"} ], "zz" : null } ] , '
            '"seed":12345678901234567890, "model" : "a-model" @stream@ }\n'
        ),
    ),
    "openai-responses": (
        ' {"model":"a-model" , "input" : @the text@, "own" : [1.0,{ }], "store" : false @stream@}',
        (
            '{"model":"a-model","include":["reasoning.encrypted_content"], "input" : [ {"type":"reasoning","id":"rs_1",'
            '"summary":[ ], "encrypted_content":"abc","own":1.0} , {"type":"message","id":"msg_1","role":"assistant",'
            '"status":"completed","content":[ {"type":"output_text","text":"So?","annotations":[ ]} ]},\n{"role" : '
            '"user","content" : [ {"type":"input_text" , "text" : @the text@ ,"own":1e5} ] , "own":null} ] @stream@ }'
        ),
    ),
    "anthropic": (
        (
            '{ "max_tokens" : 50,"model" : "a-model", "system":[ {"type":"text","text":"caf\\u00e9","cache_control" : '
            '{"type":"ephemeral"}} ], "messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":'
            '"thinking","thinking":"t","signature":"c2ln","own":1.0},{"type":"text","text":"b"}]},\n {"role" : "user", '
            '"content" : [ {"type":"text" , "text" : @the text@, "cache_control":{"ttl" : "1h","type":"ephemeral"} } ],'
            '"own" : 1e5}], "own":{"x":1.50} @stream@}'
        ),
        '{"model":"a-model","max_tokens":50,"messages":[ {"content" : @the text@ , "role":"user"} ] @stream@}',
    ),
    "gemini": (
        (
            '{ "contents" : [ {"parts":[{"text":"a"}],"role":"user"}, {"role":"model","parts":[ {"text":"b","own":1.0,'
            '"thoughtSignature":"c2ln"} ]} ,\n{"role" : "user" , "parts" : [ { "own":1e5,"text" : @the text@ } ,'
            '{"inlineData":{"mimeType":"image\\/png","data":"AAAA"}} ] } ], "generation_config" : '
            '{"maxOutputTokens":50,"topP":1.0},"own":{"x":1.50} }'
        ),
        '{"contents":[{"parts":[{"text":@the text@}]}],"systemInstruction" : {"parts":[{"text":"caf\\u00e9"} ]}}',
    ),
    "mistral": (
        (
            ' {"safe_prompt" : true, "messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":'
            '"thinking","thinking":[{"type":"text","text":"t"} ],"own":1.0}]},\n{"content" : @the text@,"own":1e5 , '
            '"role":"user"} ], "random_seed":7, "own":{"x":1.50}, "model":"a-model" @stream@}'
        ),
    ),
}
CASES = [
    pytest.param(speaker, body, stream, id=f"{speaker}-{number}-{'stream' if stream else 'plain'}")
    for speaker in SPEAKERS
    for number, body in enumerate(BODIES[speaker.name])
    for stream in (False, True)
]


def filled(speaker: Speaker, body: str, *, stream: bool) -> str:
    """*body* as it asks for a streamed answer or for a plain one."""
    said = ', "stream" : true'
    if stream and speaker.name == "openai":
        said += ' , "stream_options" : {"include_usage":true}'  # else the proxy asks for it
    return body.replace(" @stream@", said if stream else "").replace("@stream@", "")


def mapping(llm: str, url: str, small: Speaker, small_url: str) -> dict[str, Any]:
    return {
        "llm": {"main": llm_at(llm, url), "small": llm_at(small.name, small_url)},
        "processor": {"enhance_query": {"type": "enhance_query", "llm": "small", "model": "e"}},
        "route": [{"path_prefix": "/", "target_llm": "main", "operations": ["chat"], "processors": ["enhance_query"]}],
    }


def saying(speaker: Speaker, text: str, *, stream: bool) -> Answering:
    return Answering(speaker, stream, [TextDelta(0, text), Finished(0, Finish(FinishReason.STOP))])


@pytest.mark.parametrize(("speaker", "body", "stream"), CASES)
async def test_all_bytes_but_the_text_reach_an_llm_of_the_same_protocol(
    speaker: Speaker, body: str, stream: bool
) -> None:
    before, _, after = (part.encode() for part in filled(speaker, body, stream=stream).partition(MARK))
    main = Upstream(saying(speaker, "ok", stream=stream).complete())
    small = Upstream(saying(Speaker("openai"), NEW, stream=False).complete())
    async with main, small:
        config = mapping(speaker.name, main.url, Speaker("openai"), small.url)
        async with Proxy(config, plugins=PLUGINS) as proxy:
            path = speaker.path(stream=stream, model="a-model")
            seen = await post(proxy.url + path, before + OLD.encode() + after, speaker.headers())

        assert (seen.status, seen.whole) == (200, True), seen.body
        assert json.loads(small.requests[0].body)["messages"][-1]["content"] == "café 🙂?"
        received = main.requests[0].body
    assert received.startswith(before)
    assert received.endswith(after)
    assert json.loads(received[len(before) : len(received) - len(after)]) == NEW


@pytest.mark.parametrize("small", SPEAKERS[:5], ids=lambda speaker: f"by_{speaker}")
@pytest.mark.parametrize("client", SPEAKERS, ids=str)
async def test_an_llm_of_any_protocol_rewrites_for_clients_of_any(client: Speaker, small: Speaker) -> None:
    main_speaker = Speaker("anthropic") if client.name != "anthropic" else Speaker("openai")
    main = Upstream(saying(main_speaker, "ok", stream=False).complete())
    rewriting = Upstream(saying(small, NEW, stream=False).complete())
    async with main, rewriting:
        async with Proxy(mapping(main_speaker.name, main.url, small, rewriting.url), plugins=PLUGINS) as proxy:
            messages = (
                Message("user", (TextPart("Hello"),)),
                Message("assistant", (TextPart("And?"),)),
                Message("user", (TextPart("my question"),)),
            )
            question = client.body(stream=False, model="a-model", messages=messages)
            path = client.path(stream=False, model="a-model")
            seen = await post(proxy.url + path, question, client.headers())

        assert (seen.status, seen.whole) == (200, True), seen.body
        asked = small.dialect.read_chat(small.api(stream=False), rewriting.requests[0].body)
        sent = main_speaker.dialect.read_chat(main_speaker.api(stream=False), main.requests[0].body)
    assert asked.messages[-1].text == "my question"
    assert any("You rewrite requests" in message.text for message in asked.messages if message.role != "user")
    assert [message.text for message in sent.messages] == ["Hello", "And?", NEW]
