"""Many made examples, the same in each run."""

from __future__ import annotations

from collections.abc import Callable
from random import Random


def seeded(seed: int) -> Random:
    """The same numbers for the same *seed*."""
    return Random(seed)  # noqa: S311 - nothing here is secret


def for_many(law: Callable[[Random], None], examples: int) -> None:
    """Hold *law* against *examples* made examples."""
    for seed in range(examples):
        law(seeded(seed))
