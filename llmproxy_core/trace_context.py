"""
Which trace a call belongs to, as the headers `traceparent` and `tracestate` say it (W3C Trace Context, level 2).

No tracing library is needed to read them and to pass them on, so none is run for a call that nobody samples.
"""

from __future__ import annotations

import re
from random import getrandbits

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_STATE = re.compile(r"[\x20-\x7e\t]{1,512}", re.ASCII)
_SAMPLED = 0x01
_RANDOM = 0x02


def new_span_id() -> int:
    """A random span id, never 0, which stands for none."""
    return getrandbits(64) or 1


def new_trace_id() -> int:
    """A random trace id, never 0."""
    return getrandbits(128) or 1


class TraceContext:
    """
    A call's place in its trace. Made per call.

    *span_id* is the call's own span, *parent_id* the caller's (None where the trace begins here). *sampled* says
    whether its spans are recorded, *state* is what vendors carry along (`tracestate`), as it came.
    """

    __slots__ = ("_flags", "parent_id", "sampled", "span_id", "state", "trace_id")

    def __init__(
        self,
        trace_id: int,
        span_id: int,
        *,
        sampled: bool,
        parent_id: int | None = None,
        state: str = "",
        random: bool = True,
    ) -> None:
        """*random*: the trace id was drawn at random, so that who comes after may sample by it."""
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.sampled = sampled
        self.state = state
        self._flags = (_SAMPLED if sampled else 0) | (_RANDOM if random else 0)

    @property
    def trace_hex(self) -> str:
        """The trace id as logs and headers write it."""
        return f"{self.trace_id:032x}"

    def traceparent(self, span_id: int | None = None) -> str:
        """The header for a call made under the span *span_id*; None: under the call's own."""
        return f"00-{self.trace_id:032x}-{self.span_id if span_id is None else span_id:016x}-{self._flags:02x}"


class Parent:
    """What a caller's headers say of the trace."""

    __slots__ = ("random", "sampled", "span_id", "state", "trace_id")

    def __init__(self, trace_id: int, span_id: int, *, sampled: bool, random: bool, state: str) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled
        self.random = random
        self.state = state


def caller_trace(traceparent: str) -> str | None:
    """The trace id of the caller's span as logs write it; None as `read_parent`."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found[1] != "00" or found[5]:  # what is not as usual is looked at again
        parent = read_parent(traceparent)
        return None if parent is None else f"{parent.trace_id:032x}"
    trace = found[2]
    return trace if trace.strip("0") and found[3].strip("0") else None


def read_parent(traceparent: str, tracestate: str = "") -> Parent | None:
    """
    The caller's span; None when *traceparent* is not one: the trace then begins anew, as the recommendation says.

    *tracestate* may be several header fields joined by commas; what cannot be one is dropped.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    trace, span, bits = int(trace_id, 16), int(span_id, 16), int(flags, 16)
    if not trace or not span:
        return None
    state = tracestate.strip() if tracestate else ""
    if state and not _STATE.fullmatch(state):
        state = ""
    return Parent(trace, span, sampled=bool(bits & _SAMPLED), random=bool(bits & _RANDOM), state=state)
