"""What the dialect says of itself: headers, queries, model lists, its public names."""

import json

import pytest

import llmproxy_openai
from llmproxy_core.dialect import Operation
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.secret import Secret
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import MODEL, MODELS

OPENAI = OpenAIDialect()


@pytest.mark.parametrize(
    ("header", "crosses"),
    [
        ("x-ratelimit-remaining-tokens", True),
        ("retry-after", True),
        ("retry-after-ms", True),
        ("x-should-retry", True),
        ("openai-processing-ms", True),
        ("openai-version", True),
        ("openai-organization", False),
        ("openai-project", False),
        ("set-cookie", False),
        ("x-request-id", False),
        ("cf-ray", False),
    ],
)
def test_response_headers_cross_by_a_list(header: str, crosses: bool) -> None:
    assert OPENAI.crosses(header) is crosses


@pytest.mark.parametrize("header", ["authorization", "openai-organization", "openai-project", "cookie", "user-agent"])
def test_who_pays_is_not_for_the_caller_to_say(header: str) -> None:
    assert header not in OPENAI.request_headers


def test_the_key_is_a_bearer_token() -> None:
    assert OPENAI.auth_headers(Secret("sk-1")) == [("authorization", "Bearer sk-1")]
    assert OPENAI.constant_headers() == []


def test_every_api_has_a_name_of_its_own() -> None:
    names = [api.name for api in OPENAI.apis]

    assert len(set(names)) == len(names)
    assert all(name.startswith("openai.") for name in names)
    assert {api.operation for api in OPENAI.apis} == {Operation.CHAT, Operation.EMBEDDINGS, Operation.MODELS}
    assert all(api.has_body == (api.method == "POST") for api in OPENAI.apis)


def test_configured_models_are_listed() -> None:
    models = [ModelInfo("a", created=5), ModelInfo("b/c", created=5, owner="meta")]

    assert json.loads(OPENAI.write_models(MODELS, models)) == {
        "object": "list",
        "data": [
            {"id": "a", "object": "model", "created": 5, "owned_by": "llmproxy"},
            {"id": "b/c", "object": "model", "created": 5, "owned_by": "meta"},
        ],
    }
    assert json.loads(OPENAI.write_models(MODEL, models))["id"] == "a"


def test_the_public_names_are_there() -> None:
    assert all(hasattr(llmproxy_openai, name) for name in llmproxy_openai.__all__)
    assert sorted(llmproxy_openai.__all__) == llmproxy_openai.__all__
