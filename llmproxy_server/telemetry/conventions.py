"""
The names of OpenTelemetry's semantic conventions for generative AI, and the values that are ours to choose.

The released package marks every one of them as moved, so none is imported. Metrics have a released name (of
semantic-conventions 1.37, what packages emit today) and a newest one (of semantic-conventions-genai, in development).
Attributes of spans have the newest names alone: these only add.
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
EMBEDDINGS_DURATION = "gen_ai.client.embeddings.duration"
EMBEDDINGS_INPUT_TOKENS = "gen_ai.client.embeddings.operation.input_tokens"
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


# -- attributes of spans, always the newest --------------------------------------------------------------------------

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences"
REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level"
REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats"
EMBEDDINGS_DIMENSION_COUNT = "gen_ai.embeddings.dimension.count"
OUTPUT_TYPE = "gen_ai.output.type"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_INPUT_TOKENS = "gen_ai.usage.cache_write.input_tokens"
REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
AUDIO_INPUT_TOKENS = "gen_ai.usage.audio.input_tokens"
AUDIO_OUTPUT_TOKENS = "gen_ai.usage.audio.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"

SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_STATUS = "http.response.status_code"
HTTP_ROUTE = "http.route"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
CLIENT_ADDRESS = "client.address"
PROTOCOL_VERSION = "network.protocol.version"
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""Another one is `_OTHER`, since callers may make up any."""

# What has no convention.
OURS = "llmproxy."
REQUEST_ID = OURS + "request.id"
OPERATION = OURS + "operation"
PROCESSORS = OURS + "processors"
PROCESSOR = OURS + "processor"
END = OURS + "end"
COST_USD = OURS + "cost.usd"
ATTEMPTS = OURS + "attempts"
LLM = OURS + "llm"
UPSTREAM_ID = OURS + "upstream.request_id"
ATTEMPT_KEY = OURS + "attempt.key"
ATTEMPT_NEXT = OURS + "attempt.next"
PASSED_OVER = OURS + "passed_over"
USAGE_SOURCE = OURS + "usage.source"
OF_ONE_CALL = frozenset({REQUEST_ID, RESPONSE_ID, UPSTREAM_ID})
"""Whose values do not come again."""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""Of the core conventions that the newest GenAI ones build on."""
