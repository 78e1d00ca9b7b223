"""Where an LLM of the provider `openai` is called, and with what: OpenAI, compatible servers, Azure."""

import json

import pytest

from llmproxy_core.secret import Secret
from llmproxy_core.upstream_url import base_url
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.azure import azure_auth, azure_base, azure_model_base, azure_query
from tests.answers import completion
from tests.exact import ask, post
from tests.proxy import SECRET, Proxy, openai_at
from tests.upstream import Upstream, reply

QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
KEY = {"OPENAI_TEST_KEY": SECRET}


@pytest.mark.parametrize(
    ("configured", "base"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1"),
        ("https://api.deepseek.com", "https://api.deepseek.com/v1"),
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        (
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "https://generativelanguage.googleapis.com/v1beta/openai",
        ),
    ],
)
def test_compatible_servers_are_called_where_their_sdks_call_them(configured: str, base: str) -> None:
    assert base_url(configured, OpenAIDialect()) == base


@pytest.mark.parametrize(
    ("configured", "base"),
    [
        ("https://x.openai.azure.com", "https://x.openai.azure.com/openai/deployments/{model}"),
        ("https://x.openai.azure.com/openai", "https://x.openai.azure.com/openai/deployments/{model}"),
        ("https://x.openai.azure.com/openai/deployments/d", "https://x.openai.azure.com/openai/deployments/d"),
        ("https://x.openai.azure.com/openai/v1", "https://x.openai.azure.com/openai/v1"),
        ("https://x.services.ai.azure.com/models", "https://x.services.ai.azure.com/models"),
    ],
)
def test_a_bare_resource_of_azure_means_its_deployments(configured: str, base: str) -> None:
    assert (azure_model_base(configured) or azure_base(configured)) == base
    assert azure_base(configured) == base.removesuffix("/deployments/{model}")


def test_azure_takes_its_key_in_a_header_of_its_own() -> None:
    assert azure_auth(Secret("k")) == [("api-key", "k")]
    assert azure_query("2024-10-21") == "api-version=2024-10-21"


async def test_what_is_not_of_one_deployment_goes_to_the_resource() -> None:
    async with Upstream(reply({"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]})) as upstream:
        root = upstream.base_url.removesuffix("/v1")
        mapping = openai_at(
            root, api_version="2024-10-21", token_env="OPENAI_TEST_KEY", route={"operations": ["models", "opaque"]}
        )
        async with Proxy(mapping, env=KEY) as proxy:
            listed = await ask("GET", proxy.base_url + "/models")
            passed = await ask("GET", proxy.base_url + "/files?limit=2")
        targets = [each.target for each in upstream.requests]

    assert (listed.status, passed.status) == (200, 200)
    assert targets == ["/openai/models?api-version=2024-10-21", "/openai/files?limit=2&api-version=2024-10-21"]


async def test_a_call_of_azure_names_the_deployment_in_its_path_and_the_version_in_its_query() -> None:
    async with Upstream(reply(completion("Hello"))) as upstream:
        root = upstream.base_url.removesuffix("/v1")
        mapping = openai_at(root, api_version="2024-10-21", token_env="OPENAI_TEST_KEY", models={"gpt-4o": "my dep"})
        async with Proxy(mapping, env=KEY) as proxy:
            seen = await post(proxy.base_url + "/chat/completions", json.dumps(QUESTION).encode())
        called = upstream.requests[0]

    assert seen.status == 200
    assert called.target == "/openai/deployments/my%20dep/chat/completions?api-version=2024-10-21"
    headers = {name.lower(): value for name, value in called.headers}
    assert headers["api-key"] == SECRET
    assert "authorization" not in headers
    assert json.loads(called.body)["model"] == "my dep"
