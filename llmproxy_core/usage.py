"""Tokens used by a call, in one meaning for all providers."""

from __future__ import annotations

from enum import StrEnum

from llmproxy_core.node import node


class UsageSource(StrEnum):
    """How far a count can be trusted."""

    REPORTED = "reported"
    COUNTED = "counted"
    ESTIMATED = "estimated"


_TRUST = [UsageSource.REPORTED, UsageSource.COUNTED, UsageSource.ESTIMATED]


@node
class Usage:
    """
    Token counts of one or more calls.

    *input_tokens* includes the cached, the cache-written and the audio ones, *output_tokens* includes reasoning and
    audio, so that `input_tokens + output_tokens` is the total whatever the provider (protocols differ; dialects
    convert). Sound that is known to have come from the cache counts as cached alone.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    source: UsageSource = UsageSource.REPORTED
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    service_tier: str | None = None
    """The tier that the provider says it billed in, in its own word; None when it says none."""
    cache_write_1h_tokens: int = 0
    """Those of the cache-written ones that were written for an hour, which cost more."""

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """The sum, only as trustworthy as its weaker half; of different service tiers it has none."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            max(self.source, other.source, key=_TRUST.index),
            self.audio_input_tokens + other.audio_input_tokens,
            self.audio_output_tokens + other.audio_output_tokens,
            self.service_tier if self.service_tier == other.service_tier else None,
            self.cache_write_1h_tokens + other.cache_write_1h_tokens,
        )
