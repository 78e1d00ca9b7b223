"""The wire forms of Mistral's API. Their paths are OpenAI's too."""

from __future__ import annotations

from llmproxy_core import Api, Operation

CHAT = Api("mistral.chat", Operation.CHAT, "POST", "/chat/completions")
EMBEDDINGS = Api("mistral.embeddings", Operation.EMBEDDINGS, "POST", "/embeddings")
MODELS = Api("mistral.models", Operation.MODELS, "GET", "/models", has_body=False)
MODEL = Api("mistral.model", Operation.MODELS, "GET", "/models/{model}", has_body=False)

APIS = (CHAT, EMBEDDINGS, MODELS, MODEL)
