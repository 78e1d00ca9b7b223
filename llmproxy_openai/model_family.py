"""What a model's name tells of the requests it takes."""

from __future__ import annotations

import re
from functools import lru_cache

import attrs

_OPENAI = re.compile(r"(?:gpt-(?!oss|neo|j\b|2\b)|chatgpt-|codex-|computer-use-|o[1-9]\d*(?:-|$))")
_SERIES_O = re.compile(r"o[1-9]\d*(?:-|$)")
_GPT = re.compile(r"gpt-(\d+)(?:\.(\d+))?(?![\d.])")
_FINE_TUNED = re.compile(r"ft:([^:]+)")

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The words for how much to think, least first."""


@attrs.frozen
class ModelFamily:
    """The rules for a model. A name that is not one of OpenAI's belongs to some compatible server."""

    is_openai: bool = False
    bounds_thinking: bool = False
    """Takes `max_completion_tokens` alone: `max_tokens` is an error."""
    is_reasoning: bool = False
    """Thinks before it answers, and samples in its own way only."""
    takes_stop: bool = True
    takes_custom_tools: bool = False
    """Takes tools whose input is a text."""
    is_google: bool = False
    """Gemini behind Google's own surface for OpenAI's protocol, which signs its calls."""
    efforts: tuple[str, ...] = ("none", "low", "medium", "high")
    """What `reasoning_effort` may be; empty: the model cannot think."""


@lru_cache(256)
def family_of(model: str | None) -> ModelFamily:
    """The family of *model*, whose name may have a vendor before it (`openai/gpt-5`)."""
    name = (model or "").rpartition("/")[2].lower()
    if (tuned := _FINE_TUNED.match(name)) is not None:
        name = tuned[1]
    if _OPENAI.match(name) is None:
        return ModelFamily(is_google="gemini" in name)
    if _SERIES_O.match(name) is not None:
        return ModelFamily(
            is_openai=True,
            takes_custom_tools=True,
            bounds_thinking=True,
            is_reasoning=True,
            takes_stop=not name.startswith(("o3", "o4-mini")),
            efforts=("low", "medium", "high"),
        )
    version = _GPT.match(name)
    generation = (int(version[1]), int(version[2] or 0)) if version is not None else (0, 0)
    if generation < (5, 0):
        return ModelFamily(is_openai=True, takes_custom_tools=True, efforts=())
    thinks = "-chat" not in name
    return ModelFamily(
        is_openai=True,
        takes_custom_tools=True,
        bounds_thinking=True,
        is_reasoning=thinks,
        efforts=_efforts(generation) if thinks else (),
    )


def _efforts(generation: tuple[int, int]) -> tuple[str, ...]:
    if generation == (5, 0):
        return EFFORTS[1:5]
    if generation == (5, 1):
        return ("none", "low", "medium", "high")
    return ("none", "low", "medium", "high", "xhigh") if generation < (5, 4) else EFFORTS


def fitting_effort(word: str, known: tuple[str, ...]) -> str:
    """The one of *known* that is nearest to *word*, rather more than less; a word nobody knows is left as it is."""
    if word in known or word not in EFFORTS or not known:
        return word
    wanted = EFFORTS.index(word)
    return next((each for each in known if EFFORTS.index(each) >= wanted), known[-1])
