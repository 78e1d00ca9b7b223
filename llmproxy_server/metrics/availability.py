"""Which models can be had, as far as the last attempts of all processes tell."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxy_server.metrics.families import LAST_FAILURE, LAST_SUCCESS, SERVES
from llmproxy_server.metrics.snapshot import Snapshot


def available_models(snapshot: Snapshot) -> Iterator[tuple[str, bool]]:
    """
    Pairs (model, available): whether one of the LLMs that serve it is well.

    An LLM is well unless the last attempt on it failed by the fault of its provider: nobody asks it for the sake of
    this alone, so what was never tried is well, and what failed is not until it answers again.
    """
    models: dict[str, bool] = {}
    for labels, cells in snapshot.of(SERVES.name).cells.items():
        if cells[0]:
            said = dict(labels)
            models[said["model"]] = models.get(said["model"], False) or is_well(snapshot, said["llm"])
    yield from sorted(models.items())


def is_well(snapshot: Snapshot, llm: str) -> bool:
    failed = snapshot.of(LAST_FAILURE.name).value(llm=llm)
    return not failed or snapshot.of(LAST_SUCCESS.name).value(llm=llm) >= failed
