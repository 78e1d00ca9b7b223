"""Token counts as Gemini reports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from llmproxy_core import Usage
from llmproxy_core.wire import MOST_TOKENS, Counts, encode, join_object, tier_word

_TIERS = frozenset({"standard", "flex", "priority"})
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NAMES = (
    "promptTokenCount",
    "candidatesTokenCount",
    "totalTokenCount",
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
)


_Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)] | None


class _Detail(msgspec.Struct, rename="camel"):
    modality: str | None = None


class _Usual(msgspec.Struct, rename="camel"):
    """A `usageMetadata` as nearly all are, checked by the decoder: each member is a count that may be true."""

    prompt_token_count: _Count = None
    candidates_token_count: _Count = None
    total_token_count: _Count = None
    thoughts_token_count: _Count = None
    tool_use_prompt_token_count: _Count = None
    cached_content_token_count: _Count = None
    prompt_tokens_details: list[_Detail] | None = None
    candidates_tokens_details: list[_Detail] | None = None
    service_tier: str | None = None

    def usage(self) -> Usage | None:
        """What `read_usage` gives, where nothing has to be guessed or cut, and nobody spoke; else None."""
        asked, thoughts = self.prompt_token_count, self.thoughts_token_count or 0
        cached = self.cached_content_token_count or 0
        if asked is None or cached > asked or (self.candidates_token_count is None and self.total_token_count is None):
            return None
        asked += self.tool_use_prompt_token_count or 0
        answered = (self.candidates_token_count or 0) + thoughts
        if self.total_token_count not in {None, asked + answered}:
            return None
        for details in (self.prompt_tokens_details, self.candidates_tokens_details):
            if details is not None and any(each.modality == "AUDIO" for each in details):
                return None
        return Usage(asked, answered, cached, 0, thoughts, service_tier=tier_word(self.service_tier))


_decode_usual = msgspec.json.Decoder(_Usual).decode


def read_usage(text: bytes, *, has_output: bool = True) -> Usage | None:
    """
    The counts in a `usageMetadata` object; None when *text* is no object or has no usable count.

    Thoughts are output, and not among the candidates' tokens; what tools brought is input, and not among the prompt's;
    cached tokens are among the prompt's. What the total has beyond all these was generated too. A count that cannot be
    true counts as not there, and the usage is then an estimate, as it is where half of it is wanting; embeddings have
    no output (*has_output*).
    """
    try:
        usual = _decode_usual(text).usage()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        usual = None
    return _read_odd(text, has_output=has_output) if usual is None else usual


def _read_odd(text: bytes, *, has_output: bool = True) -> Usage | None:
    """`read_usage` of whatever it is."""
    try:
        members = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    counts = Counts()
    asked, said, total, thought, brought = (counts.read(members, name) for name in _NAMES)
    asked = None if asked is None else asked + (brought or 0)
    said = None if said is None else said + (thought or 0)
    halves = counts.halves(asked, said, total, has_output=has_output)
    if halves is None:
        return None
    input_tokens, output_tokens = halves
    if asked is not None and said is not None:
        output_tokens += max(0, (total or 0) - input_tokens - output_tokens)
    cached = counts.within(input_tokens, counts.read(members, "cachedContentTokenCount"))
    heard = _spoken(counts, members, "promptTokensDetails")
    heard_before = min(heard, _spoken(counts, members, "cacheTokensDetails"))
    tier = members.get("serviceTier")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        reasoning_tokens=counts.within(output_tokens, thought),
        audio_input_tokens=counts.within(input_tokens, heard - heard_before),
        audio_output_tokens=counts.within(output_tokens, _spoken(counts, members, "candidatesTokensDetails")),
        service_tier=tier_word(tier if isinstance(tier, str) else None),
        source=counts.source,
    )


def _spoken(counts: Counts, members: Mapping[str, Any], name: str) -> int:
    """The tokens of sound among those that *name* tells apart."""
    details = members.get(name)
    found = [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    return sum(counts.read(each, "tokenCount") or 0 for each in found if each.get("modality") == "AUDIO")


def write_usage(usage: Usage) -> bytes:
    """*usage* as Gemini reports it."""
    members = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cached_input_tokens:
        members["cachedContentTokenCount"] = usage.cached_input_tokens
    if usage.reasoning_tokens:
        members["thoughtsTokenCount"] = usage.reasoning_tokens
    texts = {name: encode(count) for name, count in members.items()}
    if usage.audio_input_tokens:
        texts["promptTokensDetails"] = _modalities(usage.input_tokens, usage.audio_input_tokens)
    if usage.audio_output_tokens:
        said = usage.output_tokens - usage.reasoning_tokens
        texts["candidatesTokensDetails"] = _modalities(said, usage.audio_output_tokens)
    if usage.service_tier in _TIERS:
        texts["serviceTier"] = encode(usage.service_tier)
    return join_object(texts)


def _modalities(total: int, audio: int) -> bytes:
    counts = [("TEXT", total - audio), ("AUDIO", audio)]
    return encode([{"modality": word, "tokenCount": count} for word, count in counts if count > 0])
