"""Probabilities of tokens: Gemini's `logprobsResult`, and OpenAI's form, which is that of the neutral conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproxy_core.chat import JSONText

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read_logprobs(text: bytes) -> JSONText | None:
    """`logprobsResult` in the neutral form; None when nothing usable is in it."""
    result = _object(text)
    chosen = result.get("chosenCandidates")
    if not isinstance(chosen, list):
        return None
    top = result.get("topCandidates")
    tops = top if isinstance(top, list) else []
    entries = []
    for place, candidate in enumerate(chosen):
        if (entry := _entry(candidate)) is None:
            return None
        others = tops[place].get("candidates") if place < len(tops) and isinstance(tops[place], dict) else None
        found = others if isinstance(others, list) else []
        entry["top_logprobs"] = [it for each in found if (it := _entry(each)) is not None]
        entries.append(entry)
    return msgspec.json.encode({"content": entries, "refusal": None})


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _entry(candidate: object) -> dict[str, Any] | None:
    if not isinstance(candidate, dict) or not isinstance(token := candidate.get("token"), str):
        return None
    return {
        "token": token,
        "logprob": candidate.get("logProbability", 0.0),
        "bytes": list(token.encode(errors="replace")),
    }


def write_logprobs(text: JSONText) -> JSONText | None:
    """The neutral form as `logprobsResult`; None when it is of another kind."""
    entries = _object(text).get("content")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        return None
    tops = [{"candidates": [_candidate(it) for it in each.get("top_logprobs") or ()]} for each in entries]
    return msgspec.json.encode({"topCandidates": tops, "chosenCandidates": [_candidate(each) for each in entries]})


def _candidate(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry.get("token", ""), "logProbability": entry.get("logprob", 0.0)}
