"""Of a rewritten request every byte stays but those of the one text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import llmproxy_enhance_query
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_enhance_query import Question

from llmproxy_core import Operation, Request
from llmproxy_openai import OpenAIDialect
from tests.exact import post
from tests.llmproxy_openai.json_strategies import arrays, objects, strings, unknown, values
from tests.llmproxy_openai.request_strategies import OPTIONS, messages
from tests.proxy import Proxy
from tests.upstream import Upstream, completion, reply

NEW = 'Say "déjà vu" \\ in\tone line\n🙂'
MARK = "@the text@"
"""Stands for the text, quotes included, in the bodies below."""

EARLIER = (
    '{"role":"system","content":"caf\\u00e9 \\/ x"} ,\n {"role" : "user", "content": [ {"type":"image_url", '
    '"image_url":{"url":"https:\\/\\/example.com\\/a.png","own":1.0}} , {"type":"made_up","x":1e5} ]}, '
    '{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function",'
    '"function":{"name":"f","arguments":"{ \\"a\\":1}"}}],"own":null},{"role":"tool","tool_call_id":"c","content":"x"}'
)
BODIES = {
    "plain": '{"model":"m","messages":[{"role":"user","content":@the text@}]}',
    "another order": '{"messages":[{"content":@the text@,"role":"user"}],"model":"m"}',
    "spaces": ' {\n  "model" : "m" ,\r\n  "messages" : [ {\t"role" : "user" ,\n "content" : @the text@ } ] }\n ',
    "unknown members": '{"model":"m","own":{"b":1.50,"a":[ ]},"messages":[{"own":1e5,"role":"user","content":@the text@'
    ',"name":"Ann","zz":null}],"seed":12345678901234567890,"top_p":1.0}',
    "earlier messages": f'{{"model":"m","messages":[{EARLIER} , {{"role":"user","content":@the text@}} ]}}',
    "escaped names": '{"m\\u006fdel":"m","messages":[{"r\\u006fle":"user","c\\u006fntent":@the text@}]}',
    "one part": '{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":@the text@}]}]}',
    "parts": '{"model":"m","messages":[{"role":"user" , "content" : [ {"type":"image_url","image_url": '
    '{"url":"data:image\\/png;base64,AAAA","detail":"low"}} , {"own":1.0, "text" : @the text@ , "type":"text",'
    '"cache_control":{"type":"ephemeral","own":1}} ,{"type":"file","file":{"file_id":"f","own":2.0}} ] }]}',
    "a stream": '{"stream":true,"model":"m","stream_options":{"include_usage":true,"own":1.0},'
    '"messages":[{"role":"user","content":@the text@}]}',
}


def parted(body: str) -> tuple[bytes, bytes]:
    before, _, after = body.partition(MARK)
    return before.encode(), after.encode()


def config(main: Upstream, small: Upstream) -> dict[str, Any]:
    return {
        "llm": {
            "openai": {"provider": "openai", "base_url": main.base_url},
            "small": {"provider": "openai", "base_url": small.base_url},
        },
        "processor": {"enhance_query": {"type": "enhance_query", "llm": "small"}},
        "route": [{"path_prefix": "/v1", "target_llm": "openai", "processors": ["enhance_query"]}],
    }


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_the_upstream_gets_the_bytes_of_the_request_but_for_the_text(body: str) -> None:
    before, after = parted(body)
    async with Upstream(reply(completion("ok"))) as main, Upstream(reply(completion(NEW))) as small:
        async with Proxy(config(main, small), plugins=[llmproxy_enhance_query]) as proxy:
            seen = await post(proxy.base_url + "/chat/completions", before + b'"caf\\u00e9 \\ud83d\\ude42?"' + after)

        assert seen.status == 200
        assert json.loads(small.requests[0].body)["messages"][-1]["content"] == "café 🙂?"
        received = main.requests[0].body
    assert received.startswith(before)
    assert received.endswith(after)
    assert json.loads(received[len(before) : len(received) - len(after)]) == NEW


async def test_of_several_texts_the_parts_between_stay_and_the_message_around_them() -> None:
    picture = b'{ "image_url":{"url":"https://example.com/a", "own":1.0} , "type":"image_url" }'
    around = b'{"messages":[ {"own": 1.50 , "content":%b, "role":"user"} ] , "model":"m"}'
    texts = b'[{"x": 1, "text":"a", "type":"text"},%b,{"type":"text","text":"b"},%b,{"type":"text","text":"c"}]'
    async with Upstream(reply(completion("ok"))) as main, Upstream(reply(completion("abc"))) as small:
        async with Proxy(config(main, small), plugins=[llmproxy_enhance_query]) as proxy:
            await post(proxy.base_url + "/chat/completions", around % (texts % (picture, picture)))

        rest = b'[{"x": 1, "text":"abc", "type":"text"},%b,%b]' % (picture, picture)
        assert main.requests[0].body == around % rest


async def test_at_once_every_request_keeps_its_own_bytes() -> None:
    async def upper(call: Any) -> None:
        said = json.loads(call.received.body)["messages"][-1]["content"]
        await call.play(*reply(completion(said.upper())))

    before, after = parted(BODIES["parts"])
    async with Upstream(reply(completion("ok"))) as main, Upstream(upper) as small:
        async with Proxy(config(main, small), plugins=[llmproxy_enhance_query]) as proxy:
            url = proxy.base_url + "/chat/completions"
            await asyncio.gather(*[post(url, before + b'"t%d"' % n + after) for n in range(30)])

        assert {request.body for request in main.requests} == {before + b'"T%d"' % n + after for n in range(30)}


# -- any request -----------------------------------------------------------------------------------------------------

DIALECT = OpenAIDialect()
CHAT = next(api for api in DIALECT.apis if api.name == "openai.chat")


@st.composite
def last_messages(draw: st.DrawFn) -> str:
    """A user's message with one text, written in any way, and whatever else may stand around it."""
    content = MARK
    if draw(st.booleans()):
        text = objects(draw, draw(st.permutations([("type", '"text"'), ("text", MARK), *draw(unknown())])))
        pictures = ('{"type":"image_url","image_url":{"url":"https://example.com/a"}}', '{ "type" : "made_up" }')
        around = [draw(st.lists(st.sampled_from(pictures), max_size=2)) for _ in range(2)]
        content = arrays(draw, [*around[0], text, *around[1]])
    return objects(draw, draw(st.permutations([("role", '"user"'), ("content", content), *draw(unknown())])))


@st.composite
def bodies(draw: st.DrawFn) -> str:
    turns = [*draw(st.lists(messages(), max_size=3)), draw(last_messages())]
    options = [(name, draw(value)) for name, value in draw(st.lists(st.sampled_from(OPTIONS), max_size=4, unique=True))]
    members = [("model", '"m"'), ("messages", arrays(draw, turns)), ("own_x", draw(values())), *options]
    return objects(draw, draw(st.permutations(members)))


@given(bodies(), strings(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)), st.text())
def test_any_request_keeps_its_bytes_but_for_the_text(body: str, was: str, now: str) -> None:
    before, after = parted(body)
    now = now.encode(errors="replace").decode()
    request = Request(operation=Operation.CHAT, dialect=DIALECT, api=CHAT, body=before + was.encode() + after)

    question = Question.of(request)

    assert question is not None
    assert question.text == json.loads(was)
    written = request.with_chat(question.reworded(now)).body
    assert written.startswith(before)
    assert written.endswith(after)
    assert json.loads(written[len(before) : len(written) - len(after)]) == now
