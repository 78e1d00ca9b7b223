"""
The names of OpenTelemetry's semantic conventions for generative AI, and the values that are ours to choose.

The released package marks every one of them as moved, so none is imported. Metrics have a released name (of
semantic-conventions 1.37, what packages emit today) and a newest one (of semantic-conventions-genai, in development).
"""

from __future__ import annotations

from llmproxy_core.dialect import Api, Operation
from llmproxy_core.llm_config import LLMConfig

# -- metrics, released -----------------------------------------------------------------------------------------------

OPERATION_DURATION = "gen_ai.client.operation.duration"
TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
TIME_PER_OUTPUT_CHUNK = "gen_ai.client.operation.time_per_output_chunk"
TOKEN_USAGE = "gen_ai.client.token.usage"

# -- metrics, newest -------------------------------------------------------------------------------------------------

INFERENCE_DURATION = "gen_ai.client.inference.duration"
INFERENCE_TIME_TO_FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
INFERENCE_TIME_PER_OUTPUT_CHUNK = "gen_ai.client.inference.time_per_output_chunk"
INFERENCE_INPUT_TOKENS = "gen_ai.client.inference.operation.input_tokens"
INFERENCE_OUTPUT_TOKENS = "gen_ai.client.inference.operation.output_tokens"
USAGE_INPUT_TOKENS = "gen_ai.client.inference.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.client.inference.usage.output_tokens"
USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.client.inference.usage.cache_read.input_tokens"
USAGE_CACHE_WRITE_INPUT_TOKENS = "gen_ai.client.inference.usage.cache_write.input_tokens"
USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.client.inference.usage.reasoning.output_tokens"

# -- values ----------------------------------------------------------------------------------------------------------

_PROVIDERS = {"mistral": "mistral_ai", "gemini": "gcp.gemini"}


def operation_name(operation: Operation, api: Api | None = None) -> str | None:
    """`gen_ai.operation.name`; None for what no model works on."""
    if operation is Operation.EMBEDDINGS:
        return "embeddings"
    if operation is not Operation.CHAT:
        return None
    return "text_completion" if api is not None and api.name == "openai.completions" else "chat"


def provider_name(config: LLMConfig) -> str:
    """`gen_ai.provider.name`: the conventions' word for the provider where they have one, else ours."""
    return _PROVIDERS.get(config.provider, config.provider)
