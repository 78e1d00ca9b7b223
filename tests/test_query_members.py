"""What a client writes behind the question mark is the provider's to understand, where both speak the same protocol."""

from __future__ import annotations

from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from tests.exact import Seen, ask, post
from tests.proxy import Proxy
from tests.speaking import PROVIDERS, Speaker, llm_at
from tests.upstream import Upstream, reply

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
ODD = "beta=true&x=1&x=&y&%62=%2F%26%23+z&x=0&a%3Db=c%20d"


async def target(
    dialect: str, path: str, *, speaks: str | None = None, prefix: str = "/", get: bool = False, **llm: object
) -> tuple[str, Seen]:
    """Where the provider was called, and what the client saw of its answer."""
    speaker = Speaker(speaks or dialect)
    mapping: dict[str, Any] = {"route": [{"path_prefix": prefix, "target_llm": "it"}]}
    async with Upstream(reply(b"{}", 418)) as upstream:
        mapping["llm"] = {"it": llm_at(dialect, upstream.url, **llm)}
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            if get:
                seen = await ask("GET", proxy.url + path, headers=speaker.headers())
            else:
                body = speaker.body(stream="stream" in path, model="m")
                seen = await post(proxy.url + path, body, speaker.headers())
        return (await upstream.received()).target, seen


@pytest.mark.parametrize("prefix", ["", "/team-1"])
@pytest.mark.parametrize("dialect", PROVIDERS)
async def test_all_of_it_goes_on_as_it_stands(dialect: str, prefix: str) -> None:
    path = Speaker(dialect).path(stream=False, model="m")

    sent, _ = await target(dialect, f"{prefix}{path}?{ODD}", prefix=prefix or "/")

    assert sent.endswith(f"{path.removeprefix('/v1beta').removeprefix('/v1')}?{ODD}")


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("alt=sse&x=1", "alt=sse&x=1"),
        ("x=1&alt=sse&y=2", "x=1&alt=sse&y=2"),
        ("key=AIza-theirs&alt=sse&k%65y=a&x=1", "alt=sse&x=1"),
        ("alt=sse", "alt=sse"),
        ("x=1&$fields=a", "x=1&$fields=a"),
        ("alt=sse&$alt=json&x=1", "alt=sse&x=1"),
        ("x-goog-api-key=a&X-Api-Key=b&authorization=c&token=d&auth_token=e&%6bey=f&Subscription-Key=g&x=1", "x=1"),
        ("y=1;key=a&x=1&z=2%3Bkey=b&pageToken=t&tokens=3", "x=1&pageToken=t&tokens=3"),
        ("", ""),
    ],
)
async def test_what_chooses_the_form_of_a_stream_stays_where_it_is_and_keys_do_not_go_on(query: str, sent: str) -> None:
    found, seen = await target("gemini", f"/v1beta/models/m:streamGenerateContent?{query}")

    assert found == "/v1beta/models/m:streamGenerateContent" + (f"?{sent}" if sent else "")
    assert b"AIza-theirs" not in seen.body


@pytest.mark.parametrize("folder", ["models", "tunedModels"])
@pytest.mark.parametrize(("query", "sent"), [("?alt=sse&x=1", "?x=1"), ("", ""), ("?x=1", "?x=1")])
async def test_a_stream_that_is_asked_for_as_a_plain_answer_keeps_its_kind_of_model(
    folder: str, query: str, sent: str
) -> None:
    path = f"/v1beta/{folder}/m:streamGenerateContent{query}"

    found, _ = await target("gemini", path, supports_streaming=False)

    assert found == f"/v1beta/{folder}/m:generateContent{sent}"


async def test_what_the_configuration_says_is_stronger() -> None:
    path = "/v1/chat/completions?a=1&api-version=preview&b=2&api%2Dversion=x"

    found, _ = await target("openai", path, api_version="2024-10-21")

    assert found == "/openai/deployments/m/chat/completions?a=1&b=2&api-version=2024-10-21"


async def test_lists_have_it_too() -> None:
    found, _ = await target("openai", f"/v1/models?{ODD}&limit=5", get=True)

    assert found == f"/v1/models?{ODD}&limit=5"


@pytest.mark.parametrize(("speaks", "path"), [("anthropic", "/v1/messages"), ("openai", "/v1/chat/completions")])
async def test_another_protocol_gets_none_of_it(speaks: str, path: str) -> None:
    found, seen = await target("gemini", f"{path}?{ODD}", speaks=speaks)

    assert "?" not in found
    assert seen.status == 418
