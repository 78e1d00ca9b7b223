"""The registered dialects, declared for the conformance tests: what each protocol can say, and its recordings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache

import attrs

from llmproxy_core import Api, Dialect, Operation
from llmproxy_core.plugins import Registry
from llmproxy_core.testing import DeclaredDialect, Recorded, RecordedError
from tests.recordings import Recording, recordings

_DIALECT_OF: Mapping[tuple[str, str], str] = {
    ("openai", "chat"): "openai",
    ("compatible", "chat"): "openai",
    ("gemini", "chat"): "openai",
    ("openai", "responses"): "openai-responses",
    ("compatible", "responses"): "openai-responses",
    ("anthropic", "messages"): "anthropic",
    ("gemini", "generate"): "gemini",
    ("gemini", "streamGenerate"): "gemini",
    ("mistral", "chat"): "mistral",
}
"""By a recording's provider and protocol."""

_COMMON = """
    system max_output_tokens temperature top_p
    tools named_tool parallel_calls parallel_tool_calls strict_tools
    image_urls image_data documents
    json_schema reasoning effort service_tier
    cached_usage reasoning_usage finish_length
""".split()  # noqa: SIM905 - words read better as text
_PENALTIES = ["frequency_penalty", "presence_penalty", "seed", "stop"]


@attrs.frozen
class Protocol:
    """What chat APIs of a dialect can say."""

    dialect: str
    says: Collection[str]
    model: str
    apis: Collection[str] = ()
    never_together: Collection[Collection[str]] = ()


def _but(words: Collection[str], *left_out: str) -> list[str]:
    return [word for word in words if word not in left_out]


_GEMINI = [
    *_but((*_COMMON, *_PENALTIES), "parallel_tool_calls", "strict_tools", "image_urls", "effort"),
    *("top_k", "audio", "allowed_tools", "past_reasoning", "call_signatures", "n", "logprobs", "json_object"),
    *("finish_filter", "finish_error", "carried_signatures"),
]

PROTOCOLS: Mapping[str, Protocol] = {
    "openai": Protocol(
        "openai",
        [
            *(*_COMMON, *_PENALTIES, "system_anywhere", "developer", "names", "allowed_tools", "audio", "n"),
            *("logprobs", "logit_bias", "json_object", "strict_schema", "verbosity", "user", "metadata", "store"),
            *("cache_key", "cache_write_usage", "refusals", "citations", "finish_filter", "carried_signatures"),
        ],
        "gpt-4o",
        ["openai.chat"],
    ),
    "openai-responses": Protocol(
        "openai-responses",
        [
            *(*_COMMON, "system_anywhere", "developer", "allowed_tools", "past_reasoning", "encrypted", "logprobs"),
            *("json_object", "strict_schema", "verbosity", "user", "metadata", "store", "cache_key", "tool_images"),
            *("cache_write_usage", "refusals", "citations", "finish_filter", "carried_signatures"),
        ],
        "gpt-4o",
    ),
    "anthropic": Protocol(
        "anthropic",
        [
            *(*_COMMON, "top_k", "stop", "tool_errors", "tool_images", "past_reasoning", "signatures", "redacted"),
            *("thinking_budget", "user", "cache_marks", "citations", "cache_write_usage"),
            *("finish_refusal", "carried_signatures"),
        ],
        "claude-opus-4-6",
        never_together=[
            ("temperature", "top_p"),
            ("tools", "thinking_budget"),  # of which the model may have to call one
            *(
                (sampling, thinking)
                for sampling in ("temperature", "top_p", "top_k", "named_tool")
                for thinking in ("effort", "thinking_budget")
            ),
        ],
    ),
    "gemini": Protocol("gemini", [*_GEMINI, "effort", "tool_images", "citations"], "gemini-3-pro-preview"),
    "gemini 2.5": Protocol("gemini", [*_GEMINI, "thinking_budget"], "gemini-2.5-pro"),
    "mistral": Protocol(
        "mistral",
        [
            *_but((*_COMMON, *_PENALTIES), "service_tier"),
            *("system_anywhere", "prefix", "audio", "past_reasoning", "n", "top_k", "json_object", "strict_schema"),
            *("metadata", "cache_key", "finish_error", "carried_signatures"),
        ],
        "mistral-large-latest",
    ),
    # What it can say with tools its own tests try: it knows no tool choice, which the word wants.
    "ollama": Protocol(
        "ollama",
        [
            *("system", "system_anywhere", "image_data", "reasoning", "past_reasoning", "max_output_tokens"),
            *("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed", "stop", "logprobs"),
            *("json_object", "json_schema", "effort", "cached_usage", "finish_length"),
        ],
        "qwen3",
    ),
}


@cache
def registered() -> Mapping[str, Dialect]:
    return Registry.load().dialects


def declared(name: str) -> DeclaredDialect:
    """The protocol *name* of `PROTOCOLS` with all its recordings."""
    protocol = PROTOCOLS[name]
    dialect = registered()[protocol.dialect]
    own = [each for each in recordings() if _DIALECT_OF.get((each.provider, each.protocol)) == protocol.dialect]
    return DeclaredDialect(
        dialect=dialect,
        says=protocol.says,
        model=protocol.model,
        apis=protocol.apis,
        never_together=protocol.never_together,
        samples=[sample for each in own for sample in _samples(dialect, each)],
        errors=[_error(each) for each in own if each.response_status >= 400],
        examples=15,
    )


def _samples(dialect: Dialect, recording: Recording) -> Iterator[Recorded]:
    api = _api(dialect, recording)
    if api is None or recording.response_status >= 400:
        return
    streamed = recording.stream or not (api.streams is not True)
    yield Recorded(
        api=api.name,
        request=recording.request_body,
        reply=None if streamed else recording.response_body,
        stream=recording.response_body if streamed else None,
        name=str(recording),
    )


def _api(dialect: Dialect, recording: Recording) -> Api | None:
    """The chat API that was called."""
    path, _, _ = recording.request_path.partition("?")
    kind = dict(recording.response_headers).get("content-type", "")
    for located in dialect.locate(path):
        api = located.api
        if api.operation is not Operation.CHAT:
            continue
        if api.streams is None or (api.streams and kind.startswith(api.stream_type)):
            return api
        if api.streams is False and "stream" not in path:
            return api
    return None


def _error(recording: Recording) -> RecordedError:
    headers = [(name.lower(), value) for name, value in recording.response_headers]
    return RecordedError(recording.response_status, recording.response_body, headers)
