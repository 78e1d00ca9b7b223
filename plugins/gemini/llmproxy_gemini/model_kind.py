"""What a model's name says of what it takes."""

from __future__ import annotations

import re
from functools import lru_cache

_NUMBERED = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_LATEST = re.compile(r"gemini-(?:flash|flash-lite|pro)-latest")
_NEWEST = (3, 0)


def bare(name: str) -> str:
    """A model's name without the folder that Google's own names stand in; tuned models keep theirs."""
    return name.removeprefix("models/")


@lru_cache(256)
def generation(model: str | None) -> tuple[int, int] | None:
    """The version of a Gemini model; None for a name that tells none."""
    if model is None:
        return None
    if _LATEST.search(model):
        return _NEWEST
    found = _NUMBERED.search(model)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def checks_signatures(model: str | None) -> bool:
    """Whether the model refuses a function call in the history without its thought signature."""
    version = generation(model)
    return version is not None and version >= _NEWEST


def is_pro(model: str | None) -> bool:
    return model is not None and "pro" in model


def is_lite(model: str | None) -> bool:
    return model is not None and "lite" in model
