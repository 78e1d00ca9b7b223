"""One answer of `/health` from those of all workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmproxy_core.endpoint import EndpointReply
from llmproxy_server.health_reason import Reason

WORDS = ("ok", "degraded", "starting", "draining")
"""From the best to the worst."""
MISSING = "worker_missing"


def merge(replies: Sequence[EndpointReply]) -> EndpointReply:
    """
    The worst word wins, calls in flight are summed, and of an LLM counts what was tried last, whoever tried it.

    *replies* are in the order of the workers, which are counted from 1. One that gave no answer is a reason.
    """
    answers = {number: answer_of(reply) for number, reply in enumerate(replies, start=1)}
    there = {number: answer for number, answer in answers.items() if answer is not None}
    missing = [number for number, answer in answers.items() if answer is None]
    reasons = [Reason(f"worker.{number}", MISSING, "it gave no answer in time").said() for number in missing]
    reasons += _reasons(there)
    word = max((it["status"] for it in there.values()), key=WORDS.index, default="ok")
    said = {
        "status": "degraded" if word == "ok" and reasons else word,
        "reasons": reasons,
        "version": next((it["version"] for it in there.values()), None),
        "uptime_s": max((it["uptime_s"] for it in there.values()), default=0.0),
        "draining": any(it["draining"] for it in there.values()),
        "in_flight": sum(it["in_flight"] for it in there.values()),
        "llms": by_name((it["llms"] for it in there.values()), latest),
        "stores": by_name((it["stores"] for it in there.values()), _store),
        "workers": {"expected": len(replies), "answering": len(there), "missing": missing},
    }
    return EndpointReply(msgspec.json.encode(said))


def answer_of(reply: EndpointReply) -> dict[str, Any] | None:
    """What a worker said of itself; None when it gave no answer, or none that can be read."""
    if reply.status != 200:
        return None
    try:
        return msgspec.json.decode(reply.body, type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def _reasons(answers: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each once, at its youngest, with the workers that gave it where that is not all of them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    workers: dict[tuple[str, str], list[int]] = {}
    for number, answer in answers.items():
        for reason in answer["reasons"]:
            key = reason["part"], reason["code"]
            workers.setdefault(key, []).append(number)
            if key not in found or _age(reason) < _age(found[key]):
                found[key] = reason
    for key, reason in found.items():
        if len(workers[key]) < len(answers):
            found[key] = {**reason, "workers": workers[key]}
    return list(found.values())


def _age(said: Mapping[str, Any]) -> float:
    return float(said.get("age_s", "inf"))


def _tried(said: Mapping[str, Any]) -> float:
    return float(said.get("tried_age_s", "inf"))


def by_name(answers: Iterable[Mapping[str, Any]], merged: Any) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for answer in answers:
        for name, said in answer.items():
            found.setdefault(name, []).append(said)
    return {name: merged(said) for name, said in found.items()}


def latest(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As the worker has it that tried it last, with the last error of any."""
    last: Mapping[str, Any] = min(said, key=_tried)
    whole = dict(last)
    errors = [it["last_error"] for it in said if "last_error" in it]
    if errors:
        whole["last_error"] = min(errors, key=_age)
    return whole


def _store(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As the worker has it that is worst off: each asks by itself."""
    rank = ("ok", "unknown", "failing")
    return dict(max(said, key=lambda it: rank.index(it["state"])))
