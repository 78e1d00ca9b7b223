"""The table of the processor, what its README says of it, and what its calls may cost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import llmproxy_enhance_query
import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_enhance_query import EnhanceQueryConfig, extra_cost_bound

import llmproxy_server.demo
from llmproxy_core import ConfigError, ExtraCall, Headers, Operation, Request
from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_openai import OpenAIDialect
from tests.exact import post
from tests.llmproxy_openai.request_strategies import requests
from tests.proxy import Proxy
from tests.upstream import Upstream, completion, reply

README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
DIALECT = OpenAIDialect()


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def request(body: bytes, api: str = "openai.chat") -> Request:
    found = next(it for it in DIALECT.apis if it.name == api)
    return Request(operation=found.operation, dialect=DIALECT, api=found, body=body, headers=Headers([]))


def mapping(**keys: Any) -> dict[str, Any]:
    return {
        "llm": {"demo": {"provider": "demo"}, "off": {"provider": "demo", "enabled": False}},
        "processor": {"enhance_query": {"type": "enhance_query", **keys}},
        "route": [{"path_prefix": "/v1", "target_llm": "demo", "processors": ["enhance_query"]}],
    }


# -- the table -------------------------------------------------------------------------------------------------------


async def test_the_readmes_table_serves() -> None:
    document = tomli.loads(block("toml"))
    async with Proxy(document, plugins=[llmproxy_enhance_query, llmproxy_server.demo]) as proxy:
        body = b'{"model":"demo","messages":[{"role":"user","content":"hi"}]}'
        seen = await post(proxy.base_url + "/chat/completions", body)
        await proxy.outcome()

    assert seen.status == 200
    (exchange,) = proxy.exchanges
    assert [(it.llm, it.model) for it in exchange.child_attempts] == [("demo", "demo")]
    assert exchange.log_fields == {"enhance_query": "enhanced"}
    assert proxy.warnings == ()


def test_the_readme_has_every_key_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| (.+?) \| [^|]+\|$", README, re.MULTILINE))

    defaults = {field.name: field.default for field in attrs.fields(EnhanceQueryConfig)}

    assert list(rows) == list(defaults)
    told = {name: text.strip("`") for name, text in rows.items() if text.startswith("`")}
    assert told == {
        "llm_timeout_s": str(defaults["llm_timeout_s"]),
        "on_failure": defaults["on_failure"],
        "max_output_tokens": str(defaults["max_output_tokens"]),
        "log_content": json.dumps(defaults["log_content"]),
    }


def test_the_readmes_python_runs() -> None:
    exec(compile(block("python"), "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"llm": "dmo"}, "demo"),
        ({"llm": "off"}, "enabled"),
        ({"model": " "}, "some text"),
        ({"system_prompt": ""}, "some text"),
        ({"llm_timeout_s": 0}, "above 0"),
        ({"on_failure": "pass"}, "original"),
        ({"max_output_tokens": 0}, "from 1"),
        ({"temperature": 3}, "from 0 to 2"),
        ({"config_value": "a", "model": "b"}, "given twice"),
        ({"sytem_prompt": "x"}, "system_prompt"),
    ],
)
def test_a_wrong_key_is_named_at_load(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Proxy(mapping(**keys), plugins=[llmproxy_enhance_query, llmproxy_server.demo])


@pytest.mark.parametrize("type_name", ["enhance_query", "openai_chat"])
def test_both_types_have_the_same_table(type_name: str) -> None:
    written = mapping(type=type_name, config_value="gpt-4", additional_config={"system_prompt": "Enhance this query"})

    proxy = Proxy(written, plugins=[llmproxy_enhance_query, llmproxy_server.demo])

    assert proxy.config.processors["enhance_query"].config == EnhanceQueryConfig(
        model="gpt-4", system_prompt="Enhance this query"
    )


# -- what its calls may cost -----------------------------------------------------------------------------------------


def test_the_bound_counts_every_byte_of_both_texts_and_the_cap() -> None:
    config = EnhanceQueryConfig(llm="small", model="m", system_prompt="é" * 100, max_output_tokens=7)
    said = [{"type": "text", "text": "🙂" * 100}, {"type": "text", "text": "x"}]
    body = json.dumps({"model": "other", "messages": [{"role": "user", "content": said}]}).encode()

    call, longer = extra_cost_bound(config, request(body))

    assert (call.llm, call.model, call.output_tokens) == ("small", "m", 7)
    assert 200 + 400 + 2 < call.input_tokens < 200 + 400 + 2 + 200
    assert longer == ExtraCall(None, None, 4 * 7, 0)  # what the rewritten question may add to the route's own call


def test_without_llm_and_model_the_bound_is_about_the_routes_own() -> None:
    body = b'{"model":"other","messages":[{"role":"user","content":"hi"}]}'

    call, longer = extra_cost_bound(EnhanceQueryConfig(), request(body))

    assert (call.llm, call.model, call.output_tokens) == (None, None, 1024)
    assert longer == ExtraCall(None, None, 1024, 0)  # the model that reads it counts as the one that wrote it


@pytest.mark.parametrize(
    "asked",
    [
        request(b'{"model":"m","messages":[]}'),
        request(b'{"model":"m","messages":[{"role":"user","content":" "}]}'),
        request(b'{"model":"m","messages":[{"role":"assistant","content":"hi"}]}'),
        request(b'{"model":"m","messages":[{"role":"nobody","content":"hi"}]}'),
        request(b'{"model":"m","prompt":[1,2]}', "openai.completions"),
        request(b'{"model":"m","input":"hi"}', "openai.embeddings"),
        Request(operation=Operation.OPAQUE),
    ],
    ids=lambda asked: asked.body.decode(),
)
def test_a_request_that_is_left_alone_has_no_bound(asked: Request) -> None:
    assert extra_cost_bound(EnhanceQueryConfig(), asked) == ()


def test_the_bound_counts_half_a_surrogate_pair_too() -> None:
    """No body holds one, but a processor may have made it."""
    asked = Request.of_chat(ChatRequest("m", (Message("user", (TextPart("\ud800"),)),)))

    call, _ = extra_cost_bound(EnhanceQueryConfig(system_prompt="x"), asked)

    assert call.input_tokens > 4


@given(st.one_of(st.binary(max_size=80), requests()))
def test_the_bound_never_raises(body: bytes) -> None:
    for api in DIALECT.apis:
        bound = extra_cost_bound(EnhanceQueryConfig(), request(body, api.name))
        assert all(isinstance(call, ExtraCall) for call in bound)


async def test_the_route_tells_the_bound_and_the_call_keeps_within_it() -> None:
    async with Upstream(reply(completion("ok"))) as main:
        written = {**mapping(max_output_tokens=20), "llm": {"demo": {"provider": "openai", "base_url": main.base_url}}}
        async with Proxy(written, plugins=[llmproxy_enhance_query]) as proxy:
            body = b'{"model":"m","messages":[{"role":"user","content":"how many?"}]}'
            bound, _ = proxy.gateway.services.route("/v1").extra_calls(request(body))
            await post(proxy.base_url + "/chat/completions", body)

        asked = json.loads(main.requests[0].body)
    assert bound.output_tokens == asked["max_completion_tokens"] == 20
    assert bound.input_tokens > sum(len(message["content"].encode()) for message in asked["messages"])
