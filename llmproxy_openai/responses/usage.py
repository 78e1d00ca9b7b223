"""Token counts as the Responses API reports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproxy_core.usage import Usage
from llmproxy_core.wire import Counts, encode, join_object, tier_word

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NOTHING: Mapping[str, Any] = {}


def read_usage(text: bytes, service_tier: str | None = None) -> Usage | None:
    """
    The counts in a `usage` object; None when *text* is no object or has no usable count. Never fails.

    The input includes what came from the cache, the output includes thinking. A count that cannot be true counts as not
    there, and the usage is then an estimate, as it is where half of it is wanting.
    """
    try:
        usage = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    counts = Counts()
    asked, answered = counts.read(usage, "input_tokens"), counts.read(usage, "output_tokens")
    total = counts.read(usage, "total_tokens")
    halves = counts.halves(asked, answered, total)
    if halves is None:
        return None
    asked, answered = halves
    of_input, of_output = _details(usage, "input_tokens_details"), _details(usage, "output_tokens_details")
    cached = counts.within(asked, counts.read(of_input, "cached_tokens"))
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cached_input_tokens=cached,
        cache_write_tokens=counts.within(asked - cached, counts.read(of_input, "cache_write_tokens")),
        reasoning_tokens=counts.within(answered, counts.read(of_output, "reasoning_tokens")),
        audio_input_tokens=counts.within(asked, counts.read(of_input, "audio_tokens")),
        audio_output_tokens=counts.within(answered, counts.read(of_output, "audio_tokens")),
        source=counts.source,
        service_tier=tier_word(service_tier),
    )


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else _NOTHING


def write_usage(usage: Usage) -> bytes:
    """*usage* as the Responses API reports it."""
    return join_object(
        {
            "input_tokens": encode(usage.input_tokens),
            "input_tokens_details": join_object(
                {
                    "cached_tokens": encode(usage.cached_input_tokens),
                    "cache_write_tokens": encode(usage.cache_write_tokens),
                }
            ),
            "output_tokens": encode(usage.output_tokens),
            "output_tokens_details": join_object({"reasoning_tokens": encode(usage.reasoning_tokens)}),
            "total_tokens": encode(usage.total_tokens),
        }
    )
