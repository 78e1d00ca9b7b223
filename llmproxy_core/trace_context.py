"""
Which trace a call belongs to, as the headers `traceparent` and `tracestate` say it (W3C Trace Context, level 2).

No tracing library is needed to read them and to pass them on, so none is run for a call that nobody samples.
"""

from __future__ import annotations

import re
from random import getrandbits

from llmproxy_core.node import record

# Version 00 ends with the flags; ff is none; later ones may say more behind them.
_TRACEPARENT = re.compile(
    r"(?:(00)|(?!00|ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?(1)|(?:-.*)?)",
    re.ASCII,
)
_STATE = re.compile(r"[\x20-\x7e\t]{1,512}", re.ASCII)
_NO_SPAN = "0" * 16
_SAMPLED = 0x01
_RANDOM = 0x02
_FLAGS = ("00", "01", "02", "03")
_AT_ONCE = 64


def new_span_id() -> int:
    """A random span id, never 0, which stands for none."""
    return getrandbits(64) or 1


class SpanIds:
    """
    Span ids as they are written; two are the id of a trace.

    Many are made at once, which is cheaper: most calls need no more of theirs.
    """

    def __init__(self) -> None:
        self._made: list[str] = []

    def new(self) -> str:
        """A random one, never the one that stands for none."""
        if not self._made:
            digits = f"{getrandbits(64 * _AT_ONCE):0{16 * _AT_ONCE}x}"
            made = [digits[begin : begin + 16] for begin in range(0, len(digits), 16)]
            self._made = [it for it in made if it != _NO_SPAN]
        return self._made.pop()


new_span_hex = SpanIds().new


class TraceContext:
    """
    A call's place in its trace. Made per call.

    *span_id* is the call's own span, *parent_id* the caller's (None where the trace begins here). *sampled* says
    whether its spans are recorded, *state* is what vendors carry along (`tracestate`), as it came. Ids are kept as they
    are written: most calls are not sampled, and nobody needs the numbers.
    """

    __slots__ = ("_flags", "_parent", "_span", "sampled", "state", "trace_hex")

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
        self.trace_hex = f"{trace_id:032x}"
        """The trace id as logs and headers write it."""
        self._span = f"{span_id:016x}"
        self._parent = None if parent_id is None else f"{parent_id:016x}"
        self.sampled = sampled
        self.state = state
        self._flags = (_SAMPLED if sampled else 0) | (_RANDOM if random else 0)

    @classmethod
    def begun(cls, bound: int) -> TraceContext:
        """The first place in a trace, under a random id: sampled if the low half of that is below *bound*."""
        low = new_span_hex()
        context = cls.__new__(cls)
        context.trace_hex = new_span_hex() + low
        context._span = new_span_hex()
        context._parent = None
        context.sampled = sampled = int(low, 16) < bound
        context.state = ""
        context._flags = _RANDOM | _SAMPLED if sampled else _RANDOM
        return context

    @classmethod
    def under(cls, parent: Parent, *, sampled: bool) -> TraceContext:
        """The place of a call that *parent* made: a new span."""
        context = cls.__new__(cls)
        context.trace_hex = parent.trace_hex
        context._span = new_span_hex()
        context._parent = parent.span_hex
        context.sampled = sampled
        context.state = parent.state
        context._flags = parent.flags & _RANDOM | (_SAMPLED if sampled else 0)
        return context

    @property
    def trace_id(self) -> int:
        return int(self.trace_hex, 16)

    @property
    def span_id(self) -> int:
        return int(self._span, 16)

    @property
    def parent_id(self) -> int | None:
        return None if self._parent is None else int(self._parent, 16)

    def traceparent(self, span_id: int | None = None) -> str:
        """The header for a call made under the span *span_id*; None: under the call's own."""
        return f"00-{self.trace_hex}-{self._span if span_id is None else f'{span_id:016x}'}-{_FLAGS[self._flags]}"

    def lines(self, span_id: int | None = None) -> str:
        """`traceparent`, as of `traceparent()`, and `tracestate`, as a head has them."""
        line = f"traceparent: {self.traceparent(span_id)}\r\n"
        return f"{line}tracestate: {self.state}\r\n" if self.state else line


@record
class Parent:
    """What a caller's headers say of the trace; ids as they are written."""

    trace_hex: str
    span_hex: str
    flags: int
    state: str

    @property
    def sampled(self) -> bool:
        return bool(self.flags & _SAMPLED)

    @property
    def random(self) -> bool:
        return bool(self.flags & _RANDOM)


def caller_trace(traceparent: str) -> str | None:
    """The trace id of the caller's span as logs write it; None as `read_parent`."""
    parent = read_parent(traceparent)
    return None if parent is None else parent.trace_hex


def read_parent(traceparent: str, tracestate: str = "") -> Parent | None:
    """
    The caller's span; None when *traceparent* is not one: the trace then begins anew, as the recommendation says.

    *tracestate* may be several header fields joined by commas; what cannot be one is dropped.
    """
    found = _TRACEPARENT.fullmatch(traceparent) or _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    _, trace, span, flags = found.groups()
    if tracestate:
        tracestate = tracestate.strip()
        if not _STATE.fullmatch(tracestate):
            tracestate = ""
    return Parent(trace, span, int(flags, 16), tracestate)
