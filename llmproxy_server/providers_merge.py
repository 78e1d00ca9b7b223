"""One answer of `/providers` from those of all workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmproxy_core.endpoint import EndpointReply
from llmproxy_server.health_llm import STANDINGS
from llmproxy_server.health_merge import answer_of, by_name, latest

_CANNOT_BE_CALLED = STANDINGS[STANDINGS.index("full") :]
_BREAKERS = ("closed", "half_open", "open")


def merge_providers(replies: Sequence[EndpointReply]) -> EndpointReply:
    """
    Calls in flight and what may be are summed; of all else what is worst counts, or what was tried last.

    *replies* are in the order of the workers, which are counted from 1.
    """
    there = {number: answer for number, it in enumerate(replies, start=1) if (answer := answer_of(it)) is not None}
    numbered = (
        {name: {**llm, "worker": number} for name, llm in answer["llms"].items()} for number, answer in there.items()
    )
    missing = [number for number in range(1, len(replies) + 1) if number not in there]
    said = {
        "llms": by_name(numbered, _llm),
        "workers": {"expected": len(replies), "answering": len(there), "missing": missing},
    }
    return EndpointReply(msgspec.json.encode(said))


def merge_drained(replies: Sequence[EndpointReply]) -> EndpointReply:
    """What one refused, all do; 503 when a worker gave no answer, since nobody knows whether it has done it."""
    for reply in replies:
        if 400 <= reply.status < 500:
            return reply
    answers = [answer for reply in replies if (answer := answer_of(reply)) is not None]
    if len(answers) < len(replies):
        silent = f"{len(replies) - len(answers)} of {len(replies)} workers gave no answer in time: ask again"
        return refusal(503, "worker_missing", silent)
    return EndpointReply(msgspec.json.encode({**answers[0], "in_flight": sum(it["in_flight"] for it in answers)}))


def refusal(status: int, code: str, message: str) -> EndpointReply:
    """An error that the other workers, too, can be told of."""
    return EndpointReply(msgspec.json.encode({"error": {"code": code, "message": message}}), status=status)


def _llm(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = latest(said)
    del whole["worker"]
    shut = [it["state"] for it in said if it["state"] in _CANNOT_BE_CALLED]
    if shut:
        whole["state"] = max(shut, key=STANDINGS.index)
    counted = [it for it in said if "in_flight" in it]  # in the middle of a reload not all say the same
    if "in_flight" in whole:
        drained = [it["worker"] for it in counted if it["drained"]]
        whole["drained"] = bool(drained)
        if 0 < len(drained) < len(said):
            whole["drained_in"] = drained
        whole["in_flight"] = sum(it["in_flight"] for it in counted)
        whole["max_in_flight"] = sum(it["max_in_flight"] or 0 for it in counted) or None
        whole["keys"] = [_key(keys) for keys in zip(*(it["keys"] for it in counted), strict=False)]
    return whole


def _key(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = dict(max(said, key=lambda it: STANDINGS.index(it["state"])))
    whole["rests_s"] = max(it["rests_s"] for it in said)
    if breakers := [it["breaker"] for it in said if "breaker" in it]:
        whole["breaker"] = _breaker(breakers)
    return whole


def _breaker(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    calls = sum(it["calls"] for it in said)
    return {
        "state": max((it["state"] for it in said), key=_BREAKERS.index),
        "calls": calls,
        "failure_rate": _mean(said, "failure_rate", calls),
        "slow_rate": _mean(said, "slow_rate", calls),
        "opened": sum(it["opened"] for it in said),
        "retry_in_s": max(it["retry_in_s"] for it in said),
    }


def _mean(said: Sequence[Mapping[str, Any]], rate: str, calls: int) -> float:
    """Of all calls, whoever made them."""
    return round(sum(float(it[rate]) * int(it["calls"]) for it in said) / max(calls, 1), 4)
