"""A rehearsal as JSON, for machines."""

from __future__ import annotations

from llmproxy_server.rehearsal.rehearsal import Rehearsed
from llmproxy_server.rehearsal.tally import By, Came, PhaseTally, RouteTally


def as_json(rehearsed: Rehearsed) -> dict[str, object]:
    """All that was counted. Seconds are those of the rehearsal's clock, costs are US dollars as text."""
    tested = rehearsed.tested
    return {
        "phases": [_phase(it, rehearsed) for it in rehearsed.phases],
        "verdict": {
            "calls": sum(it.calls for it in tested),
            "answered": sum(it.answered for it in tested),
            "share": rehearsed.share,
        },
        "advice": [
            {"kind": it.kind, "route": it.route, "provider": it.provider, "message": it.message, "calls": it.calls}
            for it in rehearsed.advice
        ],
        "not_rehearsed": list(rehearsed.unasked),
    }


def _phase(tally: PhaseTally, rehearsed: Rehearsed) -> dict[str, object]:
    phase, concerned = tally.phase, rehearsed.concerned(tally)
    return {
        "name": phase.name,
        "fault": None if phase.fault is None else phase.fault.name.lower(),
        "failing": list(phase.faults),
        "calls_seen": dict(tally.asked),
        "routes": [_route(it) | {"concerned": it in concerned} for it in tally.routes],
    }


def _route(tally: RouteTally) -> dict[str, object]:
    input_tokens, output_tokens = tally.tokens
    return {
        "route": tally.route,
        "calls": tally.calls,
        "answered": tally.answered,
        "refused": tally.number(Came.REFUSED),
        "broken_off": tally.number(Came.BROKEN),
        "given_up": tally.number(Came.GAVE_UP),
        "answered_by_another": tally.stood_in,
        "tried_again": tally.retried,
        "errors": tally.errors,
        "failed_by": {by.value: len(tally.failed_by(by)) for by in By},
        "tries": tally.tries,
        "calls_of_processors": tally.by_processors,
        "not_asked": tally.passed_over,
        "median_s": round(tally.median_s, 3),
        "worst_s": round(tally.worst_s, 3),
        "cost_usd": str(tally.cost).removeprefix("$"),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "calls_without_price": tally.unpriced,
    }
