"""The wire forms of OpenAI's API."""

from __future__ import annotations

from llmproxy_core.dialect import Api, Operation

CHAT = Api("openai.chat", Operation.CHAT, "POST", "/chat/completions")
COMPLETIONS = Api("openai.completions", Operation.CHAT, "POST", "/completions")
EMBEDDINGS = Api("openai.embeddings", Operation.EMBEDDINGS, "POST", "/embeddings")
MODELS = Api("openai.models", Operation.MODELS, "GET", "/models", has_body=False)
MODEL = Api("openai.model", Operation.MODELS, "GET", "/models/{model}", has_body=False)

APIS = (CHAT, COMPLETIONS, EMBEDDINGS, MODELS, MODEL)
