"""Which LLMs and models can be had, as far as all processes know."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxy_server.metrics.families import CONFIGURED, LAST_FAILURE, LAST_SUCCESS, SERVES, SHUT
from llmproxy_server.metrics.snapshot import Snapshot


def available_models(snapshot: Snapshot) -> Iterator[tuple[str, bool]]:
    """
    Pairs (model, available): whether one of the LLMs that serve it is well.

    What was never tried is well, and what failed is not until it answers again.
    """
    models: dict[str, bool] = {}
    for labels, cells in snapshot.of(SERVES.name).cells.items():
        if cells[0]:
            said = dict(labels)
            models[said["model"]] = models.get(said["model"], False) or is_well(snapshot, said["llm"])
    yield from sorted(models.items())


def available_llms(snapshot: Snapshot) -> Iterator[tuple[str, bool]]:
    """Pairs (LLM, available), of all that can be called: of one that is not there any more, nobody needs to know."""
    for labels, cells in sorted(snapshot.of(CONFIGURED.name).cells.items()):
        if cells[0]:
            llm = dict(labels)["llm"]
            yield llm, is_well(snapshot, llm)


def is_well(snapshot: Snapshot, llm: str) -> bool:
    """
    Whether *llm* is in service, its breaker not open, and what it was asked last no failure of its provider's.

    What one process shuts is not well for all: each knows only its own breakers.
    """
    if snapshot.of(SHUT.name).value(llm=llm):
        return False
    failed = snapshot.of(LAST_FAILURE.name).value(llm=llm)
    return not failed or snapshot.of(LAST_SUCCESS.name).value(llm=llm) >= failed
