"""The JSON of `/metrics`: how the LLMs do, for people and simple monitors."""

from __future__ import annotations

from collections.abc import Container, Mapping

import attrs
import msgspec

from llmproxy_server.metrics.families import ABANDONED, UPSTREAM, UPSTREAM_ERRORS
from llmproxy_server.metrics.snapshot import Snapshot


@attrs.define
class _Sum:
    requests: float = 0.0
    seconds: float = 0.0
    abandoned: float = 0.0
    errors: dict[str, int] = attrs.field(factory=dict)

    def add(self, other: _Sum) -> None:
        self.requests += other.requests
        self.seconds += other.seconds
        self.abandoned += other.abandoned
        for kind, count in other.errors.items():
            self.errors[kind] = self.errors.get(kind, 0) + count

    def said(self) -> dict[str, object]:
        failed = sum(self.errors.values())
        total = int(self.requests)
        judged = total - int(self.abandoned)  # nobody knows what the others would have come to
        return {
            "total_requests": total,
            "success_rate": round((judged - failed) / judged, 6) if judged else None,
            "avg_response_time": round(self.seconds / total, 6) if total else None,
            "error_counts": dict(sorted(self.errors.items())),
        }


def summary(snapshot: Snapshot, providers: Mapping[str, str]) -> bytes:
    """
    *providers*: the provider of each configured LLM by its name. Others are told of as far as they were called.

    What cannot be called itself, a group say, has no series, and is left out.
    """
    llms = _llms(snapshot, providers)
    by_provider: dict[str, _Sum] = {}
    for name, it in llms.items():
        if name in providers:
            by_provider.setdefault(providers[name], _Sum()).add(it)
    said = {
        "units": {"avg_response_time": "seconds"},
        "providers": {name: it.said() for name, it in sorted(by_provider.items())},
        "llms": {name: {"provider": providers.get(name), **it.said()} for name, it in sorted(llms.items())},
    }
    return msgspec.json.encode(said)


def _llms(snapshot: Snapshot, configured: Container[str]) -> dict[str, _Sum]:
    llms: dict[str, _Sum] = {}
    for labels, cells in snapshot.of(UPSTREAM.name).cells.items():
        count, name = sum(cells[:-1]), dict(labels)["llm"]
        if count or name in configured:
            llms[name] = _Sum(count, cells[-1])
    for labels, cells in snapshot.of(ABANDONED.name).cells.items():
        if cells[0]:
            llms.setdefault(dict(labels)["llm"], _Sum()).abandoned = cells[0]
    for labels, cells in snapshot.of(UPSTREAM_ERRORS.name).cells.items():
        label = dict(labels)
        if cells[0]:
            llms.setdefault(label["llm"], _Sum()).errors[label["code"]] = int(cells[0])
    return llms
