"""Token counts as OpenAI and compatible servers report them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from llmproxy_core.usage import Usage, UsageSource
from llmproxy_core.wire.counts import MOST_TOKENS, Counts, tier_word
from llmproxy_core.wire.splice import encode, join_object

_Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)] | None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    audio_tokens: _Count = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count = None
    audio_tokens: _Count = None


_NO_INPUT, _NO_OUTPUT = _InputDetails(), _OutputDetails()


class UsualUsage(msgspec.Struct, gc=False):
    """A `usage` object as nearly all are, checked by the decoder: each member is a count that may be true, or null."""

    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: _Count = None
    num_cached_tokens: _Count = None

    def usage(self, service_tier: str | None) -> Usage | None:
        """What `read_usage` gives, where nothing has to be guessed or cut; else None."""
        asked, answered, total = self.prompt_tokens, self.completion_tokens, self.total_tokens
        if asked is None:
            return None
        if answered is None:
            if total != asked:
                return None
            answered = 0  # embeddings
        elif total is not None and total != asked + answered:
            return None
        of_input, of_output = self.prompt_tokens_details, self.completion_tokens_details
        cached = None if of_input is None else of_input.cached_tokens
        if cached is None:
            cached = self.prompt_cache_hit_tokens
            if cached is None:
                cached = self.num_cached_tokens or 0
        tier = None if service_tier is None else tier_word(service_tier)
        if of_input is None and of_output is None:
            return None if cached > asked else Usage(asked, answered, cached, service_tier=tier)
        of_input, of_output = of_input or _NO_INPUT, of_output or _NO_OUTPUT
        written = of_input.cache_write_tokens or 0
        heard, spoken = of_input.audio_tokens or 0, of_output.audio_tokens or 0
        thought = of_output.reasoning_tokens or 0
        if cached + written > asked or heard > asked or thought > answered or spoken > answered:
            return None
        return Usage(asked, answered, cached, written, thought, _REPORTED, heard, spoken, tier)


_REPORTED = UsageSource.REPORTED  # as a global a fifth as dear: each call asks for it
_decode_usual = msgspec.json.Decoder(UsualUsage).decode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NOTHING: Mapping[str, Any] = {}


def read_usage(text: bytes, service_tier: str | None = None, *, has_output: bool = True) -> Usage | None:
    """
    The counts in a `usage` object; None when *text* is no object or has no usable count.

    Never fails: a count that cannot be true (see `Counts`) counts as not there, one that is more than what it is a part
    of is cut to that, and the usage is then an estimate, as it is where half of it is wanting. What is counted in
    `total_tokens` beyond input and output was generated too (thinking, at xAI and on Gemini's OpenAI surface) and is
    output here. *service_tier* is what stands beside the object; what is no word counts as not there.
    Embeddings have no output (*has_output*), and lack nothing without it.
    """
    try:
        usual = _decode_usual(text).usage(service_tier)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        usual = None
    return _read_odd(text, service_tier, has_output=has_output) if usual is None else usual


def _read_odd(text: bytes, service_tier: str | None, *, has_output: bool = True) -> Usage | None:
    """`read_usage` of whatever it is."""
    try:
        usage = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    counts = Counts()
    asked, answered, total = (
        counts.read(usage, "prompt_tokens"),
        counts.read(usage, "completion_tokens"),
        counts.read(usage, "total_tokens"),
    )
    halves = counts.halves(asked, answered, total, has_output=has_output)
    if halves is None:
        return None
    hidden = 0 if None in {asked, answered, total} else max(0, (total or 0) - sum(halves))
    asked, answered = halves[0], halves[1] + hidden
    input_details, output_details = (
        _details(usage, "prompt_tokens_details"),
        _details(usage, "completion_tokens_details"),
    )
    cached = counts.within(asked, _cached(counts, usage, input_details))
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cached_input_tokens=cached,
        cache_write_tokens=counts.within(asked - cached, counts.read(input_details, "cache_write_tokens")),
        reasoning_tokens=counts.within(answered, counts.read(output_details, "reasoning_tokens") or hidden),
        audio_input_tokens=counts.within(asked, counts.read(input_details, "audio_tokens")),
        audio_output_tokens=counts.within(answered, counts.read(output_details, "audio_tokens")),
        source=counts.source,
        service_tier=tier_word(service_tier),
    )


def _cached(counts: Counts, usage: Mapping[str, Any], input_details: Mapping[str, Any]) -> int | None:
    """Where OpenAI, DeepSeek and Mistral say what came from the prompt cache."""
    cached = counts.read(input_details, "cached_tokens")
    if cached is None:
        cached = counts.read(usage, "prompt_cache_hit_tokens")
    return counts.read(usage, "num_cached_tokens") if cached is None else cached


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else _NOTHING


def write_usage(usage: Usage) -> bytes:
    """*usage* as OpenAI reports it; the service tier stands beside it, and is the writer's of what is around."""
    asked = {"cached_tokens": encode(usage.cached_input_tokens)}
    if usage.cache_write_tokens:
        asked["cache_write_tokens"] = encode(usage.cache_write_tokens)
    if usage.audio_input_tokens:
        asked["audio_tokens"] = encode(usage.audio_input_tokens)
    answered = {"reasoning_tokens": encode(usage.reasoning_tokens)}
    if usage.audio_output_tokens:
        answered["audio_tokens"] = encode(usage.audio_output_tokens)
    return join_object(
        {
            "prompt_tokens": encode(usage.input_tokens),
            "completion_tokens": encode(usage.output_tokens),
            "total_tokens": encode(usage.total_tokens),
            "prompt_tokens_details": join_object(asked),
            "completion_tokens_details": join_object(answered),
        }
    )
