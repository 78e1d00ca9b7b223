"""The wire forms of OpenAI's Responses API."""

from __future__ import annotations

from llmproxy_core.dialect import Api, Operation
from llmproxy_openai import paths

DIALECT = "openai-responses"

CREATE = Api("openai-responses.create", Operation.CHAT, "POST", "/responses")
INPUT_TOKENS = Api(
    "openai-responses.input_tokens",
    Operation.COUNT_TOKENS,
    "POST",
    "/responses/input_tokens",
    form=CREATE.form,
    streams=False,
)

APIS = (CREATE, INPUT_TOKENS, paths.EMBEDDINGS, paths.MODELS, paths.MODEL)
"""Vectors and lists of models have one form, whichever of its two protocols OpenAI is asked in."""
