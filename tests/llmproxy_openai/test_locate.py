"""The operation is known from the path alone."""

import pytest

from llmproxy_core.dialect import Located
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT, COMPLETIONS, EMBEDDINGS, MODEL, MODELS


@pytest.mark.parametrize(
    ("path", "located"),
    [
        ("/v1/chat/completions", [Located(CHAT, 0), Located(COMPLETIONS, 8)]),
        ("/chat/completions", [Located(CHAT, 0), Located(COMPLETIONS, 5)]),
        ("/openai/v1/chat/completions", [Located(CHAT, 7), Located(COMPLETIONS, 15)]),
        ("/v1/completions", [Located(COMPLETIONS, 0)]),
        ("/api/v1/embeddings", [Located(EMBEDDINGS, 4)]),
        ("/v1/models", [Located(MODELS, 0)]),
        ("/models", [Located(MODELS, 0)]),
        ("/v1/models/gpt-4o", [Located(MODEL, 0, "gpt-4o")]),
        ("/x/v1/models/meta-llama/Llama-3", [Located(MODEL, 2, "meta-llama/Llama-3")]),
        ("/v1/models/meta-llama%2FLlama-3", [Located(MODEL, 0, "meta-llama/Llama-3")]),
        ("/models/v1/models/a", [Located(MODEL, 7, "a")]),
        ("/v1/models/a/models/b", [Located(MODEL, 0, "a/models/b")]),
        ("/v1/models/", []),
        ("/v1/chat/completions/", []),
        ("/v1/xcompletions", []),
        ("/v1/responses", []),
        ("/V1/Chat/Completions", []),
        ("/", []),
        ("", []),
    ],
)
def test_a_path_names_an_api(path: str, located: list[Located]) -> None:
    assert OpenAIDialect().locate(path) == located
