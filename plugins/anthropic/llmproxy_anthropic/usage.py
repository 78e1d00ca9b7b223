"""
Token counts as Anthropic reports them.

On the wire `input_tokens` leaves out what was read from the prompt cache and what was written to it; here they are in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from llmproxy_core import Usage
from llmproxy_core.wire import Counts, encode, join_object, tier_word

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NOTHING: Mapping[str, Any] = {}
_TIERS = {"default": "standard", "standard": "standard", "priority": "priority", "batch": "batch"}


def read_members(text: bytes) -> dict[str, Any]:
    """The members of a `usage` object that say something; none when *text* is no object."""
    try:
        return {name: value for name, value in _decode(text).items() if value is not None}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def read_usage(text: bytes) -> Usage | None:
    """The counts in a `usage` object; None when *text* is no object or has no usable count."""
    return counted(read_members(text))


def counted(members: Mapping[str, Any]) -> Usage | None:
    """
    The counts in *members* of a usage; None when there is none.

    Never fails: what is no count is taken as not there, one beyond what it is a part of is cut, and the usage is then
    an estimate.
    """
    counts = Counts()
    asked, answered = counts.read(members, "input_tokens"), counts.read(members, "output_tokens")
    if asked is None and answered is None:
        return None
    read, written = counts.read(members, "cache_read_input_tokens") or 0, _written(counts, members)
    details = members.get("output_tokens_details")
    thought = counts.read(details if isinstance(details, dict) else _NOTHING, "thinking_tokens")
    tier = members.get("service_tier")
    return Usage(
        input_tokens=(asked or 0) + read + written,
        output_tokens=answered or 0,
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=counts.within(answered or 0, thought),
        source=counts.source,
        service_tier=tier_word(tier if isinstance(tier, str) else None),
        cache_write_1h_tokens=counts.within(written, _written_for_an_hour(counts, members)),
    )


def _written(counts: Counts, members: Mapping[str, Any]) -> int:
    """What was written to the cache; where only the split by lifetime is told, its sum."""
    total = counts.read(members, "cache_creation_input_tokens")
    split = members.get("cache_creation")
    if total is not None or not isinstance(split, dict):
        return total or 0
    return sum(counts.read(split, name) or 0 for name in split)


def _written_for_an_hour(counts: Counts, members: Mapping[str, Any]) -> int | None:
    split = members.get("cache_creation")
    return counts.read(split, "ephemeral_1h_input_tokens") if isinstance(split, dict) else None


def merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """
    The usage of a stream: what `message_start` told, and what `message_delta` corrects.

    What the later does not say stays; nor does its 0 make nothing of an input that was counted before.
    """
    later = {name: value for name, value in now.items() if name != "input_tokens" or value != 0 or name not in before}
    return {**before, **later}


def neutral_tier(usage: Usage | None) -> str | None:
    """The service tier of an answer in the word that most protocols have for it."""
    tier = None if usage is None else usage.service_tier
    return "default" if tier == "standard" else tier


def at_start(usage: Usage | None) -> Usage | None:
    """*usage* of a `message_start`: its output is a beginning, of which a stream that breaks off has told nothing."""
    return None if usage is None else attrs.evolve(usage, output_tokens=0, reasoning_tokens=0)


def write_usage(usage: Usage) -> bytes:
    """*usage* as Anthropic reports it."""
    asked = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    members = {
        "input_tokens": encode(max(0, asked)),
        "cache_creation_input_tokens": encode(usage.cache_write_tokens),
        "cache_read_input_tokens": encode(usage.cached_input_tokens),
        "output_tokens": encode(usage.output_tokens),
    }
    if usage.cache_write_1h_tokens:
        members["cache_creation"] = join_object(
            {
                "ephemeral_5m_input_tokens": encode(usage.cache_write_tokens - usage.cache_write_1h_tokens),
                "ephemeral_1h_input_tokens": encode(usage.cache_write_1h_tokens),
            }
        )
    if usage.reasoning_tokens:
        members["output_tokens_details"] = join_object({"thinking_tokens": encode(usage.reasoning_tokens)})
    if (tier := _TIERS.get(usage.service_tier or "")) is not None:
        members["service_tier"] = encode(tier)
    return join_object(members)
