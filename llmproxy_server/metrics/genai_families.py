"""
The client metrics of the GenAI semantic conventions, as Prometheus writes their names.

OpenTelemetry's specification "Prometheus and OpenMetrics compatibility" says how: dots become underscores, the unit `s`
becomes `_seconds`, one in braces is left out, counters end with `_total`.
"""

from __future__ import annotations

import attrs

from llmproxy_server.metrics.values import Family
from llmproxy_server.telemetry import conventions

SECONDS = tuple(round(0.01 * 2**step, 2) for step in range(14))
TOKENS = tuple(float(4**step) for step in range(14))
"""The buckets that the conventions advise."""


def prometheus_name(name: str) -> str:
    return name.replace(".", "_")


def _seconds(name: str, doc: str) -> Family:
    return Family(f"{prometheus_name(name)}_seconds", "histogram", doc, SECONDS)


def _tokens(name: str, doc: str) -> Family:
    return Family(prometheus_name(name), "histogram", doc, TOKENS)


def _count(name: str, doc: str) -> Family:
    return Family(f"{prometheus_name(name)}_total", "counter", doc)


@attrs.frozen
class GenAIFamilies:
    """*usage* counts by the field of a usage. What an operation does not have is None."""

    duration: Family
    input: Family
    output: Family | None = None
    first_chunk: Family | None = None
    per_chunk: Family | None = None
    usage: tuple[tuple[str, Family], ...] = ()
    typed: bool = False
    """Whether a label tells input from output."""


_DURATION = "GenAI operation duration: an attempt on an LLM, from the first byte sent to the last one read."
_FIRST_CHUNK = "Time from the first byte sent to the first bytes of a streamed answer."
_PER_CHUNK = "The mean time between two tokens of a streamed answer, one value for each answer."
_EMBEDDINGS = "GenAI embeddings duration: an attempt on an LLM, from the first byte sent to the last one read."
_INPUT, _OUTPUT = "Input tokens of a call.", "Output tokens of a call."


def released() -> GenAIFamilies:
    """Those of the last release of the conventions, for all operations."""
    tokens = _tokens(conventions.TOKEN_USAGE, "Tokens of a call, by the label gen_ai_token_type.")
    return GenAIFamilies(
        duration=_seconds(conventions.OPERATION_DURATION, _DURATION),
        first_chunk=_seconds(conventions.TIME_TO_FIRST_CHUNK, _FIRST_CHUNK),
        per_chunk=_seconds(conventions.TIME_PER_OUTPUT_CHUNK, _PER_CHUNK),
        input=tokens,
        output=tokens,
        typed=True,
    )


def newest() -> GenAIFamilies:
    """Those of the newest draft, for all operations but embeddings."""
    return GenAIFamilies(
        duration=_seconds(conventions.INFERENCE_DURATION, _DURATION),
        first_chunk=_seconds(conventions.INFERENCE_TIME_TO_FIRST_CHUNK, _FIRST_CHUNK),
        per_chunk=_seconds(conventions.INFERENCE_TIME_PER_OUTPUT_CHUNK, _PER_CHUNK),
        input=_tokens(conventions.INFERENCE_INPUT_TOKENS, _INPUT),
        output=_tokens(conventions.INFERENCE_OUTPUT_TOKENS, _OUTPUT),
        usage=(
            ("input_tokens", _count(conventions.USAGE_INPUT_TOKENS, "Input tokens used.")),
            ("output_tokens", _count(conventions.USAGE_OUTPUT_TOKENS, "Output tokens used.")),
            ("cached_input_tokens", _count(conventions.USAGE_CACHE_READ_INPUT_TOKENS, "Cached input tokens used.")),
            ("cache_write_tokens", _count(conventions.USAGE_CACHE_WRITE_INPUT_TOKENS, "Input tokens kept in a cache.")),
            ("reasoning_tokens", _count(conventions.USAGE_REASONING_OUTPUT_TOKENS, "Reasoning tokens used.")),
        ),
    )


def newest_of_embeddings() -> GenAIFamilies:
    """Those of the newest draft for embeddings, which neither stream nor write."""
    return GenAIFamilies(
        duration=_seconds(conventions.EMBEDDINGS_DURATION, _EMBEDDINGS),
        input=_tokens(conventions.EMBEDDINGS_INPUT_TOKENS, "Input tokens of a call for embeddings."),
    )
