"""Many made examples: at random and smaller and smaller where hypothesis is installed, else the same each time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any


def seeded(seed: int) -> Random:
    """The same numbers for the same *seed*, in every run."""
    return Random(seed)  # noqa: S311 - nothing here is secret


def for_many(law: Callable[[Random], None], examples: int) -> None:
    """
    Hold *law* against *examples* made examples, the same ones in each run.

    With hypothesis what is raised is raised for the smallest example that it finds.
    """
    try:
        import hypothesis
        from hypothesis import strategies
    except ImportError:
        for seed in range(examples):
            law(seeded(seed))
        return

    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def example(random: Any) -> None:
        law(random)

    settings(hypothesis.given(strategies.randoms(use_true_random=False, note_method_calls=False))(example))()
