"""Token counts as OpenAI and compatible servers report them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproxy_core.usage import Usage
from llmproxy_openai.splice import encode, join_object

_MOST_TOKENS = 1_000_000_000
"""No call uses more; a count above it is a fault and is cut to it, so that sums and prices stay sane."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NOTHING: Mapping[str, Any] = {}


def read_usage(text: bytes) -> Usage | None:
    """
    The counts in a `usage` object; None when *text* is no object or has no usable count.

    Never fails: a count that is negative, text or not a number counts as not there. What is counted in `total_tokens`
    beyond input and output was generated too (thinking, at xAI and on Gemini's OpenAI surface) and is output here.
    """
    try:
        usage = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    asked, answered, total = (
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        _count(usage, "total_tokens"),
    )
    if asked is None and answered is None and total is None:
        return None
    answered = answered or 0
    asked = max(0, (total or 0) - answered) if asked is None else asked
    hidden = max(0, (total or 0) - asked - answered)
    reasoning = _count(_details(usage, "completion_tokens_details"), "reasoning_tokens") or hidden
    answered += hidden
    input_details = _details(usage, "prompt_tokens_details")
    cached = min(_cached(usage, input_details), asked)
    written = _count(input_details, "cache_write_tokens") or 0
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cached_input_tokens=cached,
        cache_write_tokens=min(written, asked - cached),
        reasoning_tokens=min(reasoning, answered),
    )


def _cached(usage: Mapping[str, Any], input_details: Mapping[str, Any]) -> int:
    """Where OpenAI, DeepSeek and Mistral say what came from the prompt cache."""
    cached = _count(input_details, "cached_tokens")
    if cached is None:
        cached = _count(usage, "prompt_cache_hit_tokens")
    if cached is None:
        cached = _count(usage, "num_cached_tokens")
    return cached or 0


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else _NOTHING


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    count = usage.get(name)
    if not isinstance(count, (int, float)) or isinstance(count, bool) or count < 0:
        return None
    return int(min(count, _MOST_TOKENS))


def write_usage(usage: Usage) -> bytes:
    """*usage* as OpenAI reports it."""
    asked = {"cached_tokens": encode(usage.cached_input_tokens)}
    if usage.cache_write_tokens:
        asked["cache_write_tokens"] = encode(usage.cache_write_tokens)
    answered = {"reasoning_tokens": encode(usage.reasoning_tokens)}
    return join_object(
        {
            "prompt_tokens": encode(usage.input_tokens),
            "completion_tokens": encode(usage.output_tokens),
            "total_tokens": encode(usage.total_tokens),
            "prompt_tokens_details": join_object(asked),
            "completion_tokens_details": join_object(answered),
        }
    )
