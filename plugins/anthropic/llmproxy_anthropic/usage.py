"""
Token counts as Anthropic reports them.

On the wire `input_tokens` leaves out what was read from the prompt cache and what was written to it; here they are in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproxy_core import Usage, UsageSource
from llmproxy_core.wire import Counts, encode, join_object, tier_word, true_count

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NOTHING: Mapping[str, Any] = {}
_ASKED = frozenset({"input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"})
_ANSWERED = frozenset({"output_tokens", "output_tokens_details"})
_BESIDE = frozenset({"compaction", "advisor_message"})
"""Types of iterations whose tokens are billed, and are not in those of the whole (Anthropic's SDK, `BetaUsage`)."""
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
    The counts in *members* of a usage, with those that are billed beside it; None when there is none.

    Never fails: what cannot be true is taken as not there, one beyond what it is a part of is cut, and the usage is
    then an estimate, as it is where half of it is wanting. Of an input that is not told no part counts as cached.
    """
    usage = _counted(members)
    iterations = members.get("iterations")
    if usage is None or not isinstance(iterations, list):
        return usage
    for it in iterations:
        if isinstance(it, dict) and it.get("type") in _BESIDE and (part := _iteration(it, members)) is not None:
            usage += part
    return usage


def _iteration(iteration: Mapping[str, Any], whole: Mapping[str, Any]) -> Usage | None:
    """The counts of one that is billed beside the *whole*."""
    told = {name: value for name, value in iteration.items() if value is not None}
    part = _counted({**told, "service_tier": whole.get("service_tier")})
    if part is None or iteration["type"] == "compaction":
        return part
    return part + Usage(source=UsageSource.ESTIMATED, service_tier=part.service_tier)  # another model's, at its price


def _counted(members: Mapping[str, Any]) -> Usage | None:
    counts = Counts()
    asked, answered = counts.read(members, "input_tokens"), counts.read(members, "output_tokens")
    halves = counts.halves(asked, answered, None)
    if halves is None:
        return None
    read = written = 0
    if asked is not None:
        read, written = counts.read(members, "cache_read_input_tokens") or 0, _written(counts, members)
    details = members.get("output_tokens_details")
    thought = counts.read(details if isinstance(details, dict) else _NOTHING, "thinking_tokens")
    tier = members.get("service_tier")
    return Usage(
        input_tokens=halves[0] + read + written,
        output_tokens=halves[1],
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=counts.within(halves[1], thought),
        service_tier=tier_word(tier if isinstance(tier, str) else None),
        cache_write_1h_tokens=counts.within(written, _written_for_an_hour(counts, members)),
        source=counts.source,
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
    The usage of a stream: what `message_start` told (see `at_start`), and what `message_delta` corrects.

    Of the input, what the later does not say, or cannot have meant, stays; nor does its 0 make nothing of an input that
    was counted before.
    """
    kept = {name for name in _ASKED & before.keys() & now.keys() if true_count(now[name]) is None}
    if now.get("input_tokens") == 0 and "input_tokens" in before:
        kept.add("input_tokens")
    return {**before, **{name: value for name, value in now.items() if name not in kept}}


def neutral_tier(usage: Usage | None) -> str | None:
    """The service tier of an answer in the word that most protocols have for it."""
    tier = None if usage is None else usage.service_tier
    return "default" if tier == "standard" else tier


def at_start(members: Mapping[str, Any]) -> dict[str, Any]:
    """
    *members* of the usage of a `message_start`, without its output.

    That is a beginning: a stream that breaks off, or never corrects it, has told nothing of it.
    """
    return {name: value for name, value in members.items() if name not in _ANSWERED}


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
