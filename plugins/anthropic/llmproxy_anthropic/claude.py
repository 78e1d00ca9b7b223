"""What a model can do, told by its name: the rules that differ between generations of Claude."""

from __future__ import annotations

import re
from functools import lru_cache

import attrs

# `claude-3-5-sonnet-20241022`, `claude-sonnet-4-5`, `anthropic/claude-opus-4.6`, `claude-2.1`; a date is no version.
_VERSION = re.compile(r"claude-(\d{1,2})(?:[.-](\d{1,2}))?(?!\d)|claude-[a-z]+-(\d{1,2})(?:[.-](\d{1,2}))?(?!\d)")
_ALWAYS_THINKING = ("fable", "mythos")
_NEWEST = (99, 0)

Version = tuple[int, int]

_EFFORTS = ("low", "medium", "high", "max")
_LATER_EFFORTS = ("low", "medium", "high", "xhigh", "max")

# What a model can answer with, up to what nobody wants to wait for in one call.
_OUTPUT_LIMITS: tuple[tuple[Version, int], ...] = (((4, 0), 32_000), ((3, 7), 32_000), ((3, 5), 8_192))
_SMALLEST_OUTPUT = 4_096
_FOREIGN_OUTPUT = 8_192


@attrs.frozen
class Claude:
    """
    The rules for one model. *version* is None for what is no Claude: a compatible server's own.

    Source: the vendor's pages on models, extended and adaptive thinking, structured outputs, and API versions.
    """

    version: Version | None
    always_thinks: bool = False
    """It cannot be told not to."""

    def _is_from(self, *version: int) -> bool:
        return self.version is not None and self.version >= version

    @property
    def takes_sampling(self) -> bool:
        """From 4.7 on, only the defaults are accepted."""
        return not self._is_from(4, 7)

    @property
    def takes_both_samplings(self) -> bool:
        """Whether `temperature` and `top_p` may stand together."""
        return not self._is_from(4, 1)

    @property
    def thinks(self) -> bool:
        return self.version is None or self._is_from(3, 7)

    @property
    def adapts(self) -> bool:
        """It decides itself how much to think, and takes an effort."""
        return self._is_from(4, 6)

    @property
    def takes_budget(self) -> bool:
        """It takes a number of tokens for thinking."""
        return self.thinks and not self._is_from(4, 7)

    @property
    def takes_format(self) -> bool:
        """It takes a JSON Schema for its answer, and strict tools."""
        return self._is_from(4, 5)

    @property
    def efforts(self) -> tuple[str, ...]:
        return _LATER_EFFORTS if self._is_from(4, 7) else _EFFORTS

    @property
    def output_tokens(self) -> int:
        """What to ask for when nobody said."""
        if self.version is None:
            return _FOREIGN_OUTPUT
        fitting = (tokens for version, tokens in _OUTPUT_LIMITS if self._is_from(*version))
        return next(fitting, _SMALLEST_OUTPUT)


@lru_cache(256)
def claude(model: str | None) -> Claude:
    """The rules for *model*. A Claude whose version cannot be read is taken for the newest."""
    name = (model or "").lower()
    if "claude" not in name:
        return Claude(None)
    found = _VERSION.search(name)
    always_thinks = any(family in name for family in _ALWAYS_THINKING)
    if found is None:
        return Claude(_NEWEST, always_thinks)
    major, minor = found[1] or found[3], found[2] or found[4]
    return Claude((int(major), int(minor or 0)), always_thinks)
