"""What the line of an exchange tells: its members, their order, and what each is taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import msgspec

from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.outcome import End
from llmproxy_core.trace_context import caller_trace
from llmproxy_server.log_line import ENVELOPE
from llmproxy_server.record import Ended

_STARTED = attrgetter("started_s")


class AttemptLine(msgspec.Struct, omit_defaults=True, gc=False):
    """One upstream call. *status* is null where no answer came, *ms* where nobody saw its end."""

    llm: str
    status: int | None
    error: str | None
    ms: float | None
    key: str | None = None
    """The name of the key, where the LLM has several."""
    next: str | None = None
    """Why another followed."""
    repeated: bool = False
    """Whether it was sent twice."""


class AccessLine(msgspec.Struct, omit_defaults=True, gc=False):
    """
    An exchange that is over; what is not known is left out.

    It is taken once the exchange is billed, and written later: it holds neither the bodies of the call nor anything
    else that changes.
    """

    method: str
    path: str
    status: int
    duration_ms: float
    request_id: str
    client: str
    route: str
    operation: Operation
    model: str | None = None
    """The model that answered, else the one that was sent for."""
    end: End | None = None
    error: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_cause: str | None = None
    upstream_status: int | None = None
    first_byte_ms: float | None = None
    overhead_ms: float | None = None
    """How long no upstream worked for the call, from its whole request on."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: str | None = None
    cost: str | None = None
    attempts: list[AttemptLine] | None = None
    passed_over: list[AttemptLine] | None = None
    """Calls that were not made, and why not."""
    upstream_request_id: str | None = None
    child_attempts: list[AttemptLine] | None = None
    trace_id: str | None = None
    """Of our own trace, else the caller's."""


_MEMBERS = frozenset({*AccessLine.__struct_fields__, "query", "answer"}) | ENVELOPE
"""Those of `log_content` too."""


def access_line(ended: Ended, now: float) -> AccessLine:
    """The line of what has ended at *now*, in seconds of the clock of its call."""
    call, exchange, outcome, only = ended.call, ended.exchange, ended.outcome, ended.only
    incoming, began_s, started_s = call.incoming, call.began_s, exchange.started_s
    usage, cost, first_byte_s = outcome.usage, outcome.cost, outcome.first_byte_s
    asked, answered, cached, thought, source = None, None, None, None, None
    if usage is not None:
        asked, answered, source = usage.input_tokens, usage.output_tokens, usage.source
        cached, thought = usage.cached_input_tokens or None, usage.reasoning_tokens or None
    model, upstream_id, lines, children = outcome.model, None, None, None
    if only is not None:
        model, upstream_id = model or only.model, only.upstream_id
        lines, end_s = [_attempt(only)], only.ended_s
        overhead_s = now - started_s - ((now if end_s is None or end_s > now else end_s) - only.started_s)
    else:
        served: Sequence[Attempt] = exchange.attempts
        if served:
            model, upstream_id = model or served[-1].model, served[-1].upstream_id
            lines = [_attempt(it) for it in served]
        if exchange.child_calls and (made := exchange.child_attempts):
            children, served = [_attempt(it) for it in made], [*served, *made]
        overhead_s = _overhead_s(served, started_s, now)
    trace = exchange.trace
    if trace is not None:
        trace_id: str | None = trace.trace_hex
    else:
        parent = incoming.headers.only("traceparent")
        trace_id = None if parent is None else caller_trace(parent)
    passed_over = exchange.passed_over
    line = AccessLine(  # all at once, and in their order: to set a member later is dear, and names are looked for
        incoming.method,
        incoming.path,
        ended.status,
        milliseconds(now - began_s),
        call.request_id,
        call.address,
        exchange.route,
        exchange.operation,
        model,
        outcome.end,
        None,
        None,
        None,
        None,
        None,  # of an error, which few have
        None if first_byte_s is None else milliseconds(first_byte_s - began_s),
        milliseconds(max(0.0, overhead_s)),
        asked,
        answered,
        cached,
        thought,
        source,
        None if cost is None else str(cost),
        lines,
        [_attempt(it) for it in passed_over] if passed_over else None,
        upstream_id,
        children,
        trace_id,
    )
    if outcome.error is not None:
        _tell_error(line, outcome.error)
    return line


def more_of(ended: Ended) -> Mapping[str, object]:
    """What processors have added to the line under names of their own."""
    found = ended.exchange.log_fields
    return {name: value for name, value in found.items() if name not in _MEMBERS}


def error_fields(error: ProxyError) -> dict[str, object]:
    """What is told of an error; the error itself may hold the whole call."""
    fields: dict[str, object] = {
        "error": error.code,
        "error_type": type(error).__name__,
        "error_message": error.message,
    }
    if error.__cause__ is not None:
        fields["error_cause"] = type(error.__cause__).__name__
    if isinstance(error, UpstreamError) and error.upstream_status is not None:
        fields["upstream_status"] = error.upstream_status
    return fields


def _tell_error(line: AccessLine, error: ProxyError) -> None:
    for name, value in error_fields(error).items():
        setattr(line, name, value)


def _attempt(it: Attempt) -> AttemptLine:
    error, ended_s = it.error, it.ended_s
    return AttemptLine(
        it.llm,
        it.status,
        None if error is None else error.code,
        None if ended_s is None else milliseconds(ended_s - it.started_s),
        it.key,
        it.next,
        it.repeated,
    )


def _overhead_s(attempts: Sequence[Attempt], began_s: float, ended_s: float) -> float:
    waited_s, until_s = 0.0, began_s
    for it in sorted(attempts, key=_STARTED):
        end_s = ended_s if it.ended_s is None or it.ended_s > ended_s else it.ended_s
        start_s = max(until_s, it.started_s)
        if end_s > start_s:
            waited_s += end_s - start_s
        until_s = max(until_s, end_s)
    return max(0.0, ended_s - began_s - waited_s)


def milliseconds(seconds: float) -> float:
    """*seconds* as lines have it: to a tenth. (`round` takes ten times as long.)"""
    return int(seconds * 10_000 + 0.5) / 10
