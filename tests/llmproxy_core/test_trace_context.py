"""Trace context as W3C's recommendation reads and writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.trace_context import TraceContext, caller_trace, new_span_hex, new_span_id, read_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "sampled", "random"),
    [
        (VALID, True, False),
        (f"00-{TRACE}-{SPAN}-00", False, False),
        (f"00-{TRACE}-{SPAN}-03", True, True),
        (f"00-{TRACE}-{SPAN}-fe", False, True),
        (f" {VALID} ", True, False),
        (f"cc-{TRACE}-{SPAN}-01", True, False),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True, False),
    ],
)
def test_a_callers_span_is_read(header: str, sampled: bool, random: bool) -> None:
    parent = read_parent(header)

    assert parent is not None
    assert (parent.trace_hex, parent.span_hex) == (TRACE, SPAN)
    assert (parent.sampled, parent.random) == (sampled, random)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        VALID.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-zz",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, {VALID}",
        f"00-{'１' * 32}-{SPAN}-01",
    ],
)
def test_what_is_no_span_begins_a_new_trace(header: str) -> None:
    found = read_parent(header)

    assert found is None or header.strip() != header, header


@pytest.mark.parametrize(
    ("state", "kept"),
    [("a=1,b=2", "a=1,b=2"), (" a=1 ", "a=1"), ("a=\x00", ""), ("a=" + "x" * 511, ""), ("a=é", ""), ("", "")],
)
def test_a_tracestate_that_cannot_be_one_is_dropped(state: str, kept: str) -> None:
    parent = read_parent(VALID, state)

    assert parent is not None
    assert parent.state == kept


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans(), st.booleans())
def test_what_is_written_is_read_again(trace: int, span: int, sampled: bool, random: bool) -> None:
    context = TraceContext(trace, span, sampled=sampled, random=random)

    parent = read_parent(context.traceparent())

    assert parent is not None
    below = TraceContext.under(parent, sampled=sampled)
    assert (parent.sampled, parent.random) == (sampled, random)
    assert (context.trace_id, context.span_id, context.parent_id) == (trace, span, None)
    assert (below.trace_id, below.parent_id) == (trace, span)
    assert below.span_id not in (0, span)
    assert below.traceparent() == context.traceparent(below.span_id)
    assert context.traceparent().split("-")[1] == context.trace_hex


@given(st.text(max_size=80))
def test_no_header_whatever_makes_it_fail(header: str) -> None:
    read_parent(header, header)


def test_a_call_is_made_under_the_span_that_makes_it() -> None:
    context = TraceContext(1, 2, sampled=True)

    assert context.traceparent(3) == f"00-{1:032x}-{3:016x}-03"


def test_ids_are_drawn_anew_and_never_zero() -> None:
    assert len({TraceContext.begun(0).trace_hex for _ in range(100)}) == 100
    assert len({new_span_id() for _ in range(100)}) == 100
    assert len({new_span_hex() for _ in range(1000)}) == 1000
    assert all(len(new_span_hex()) == 16 and int(new_span_hex(), 16) > 0 for _ in range(1000))
    assert all(0 < new_span_id() < 2**64 and 0 < TraceContext.begun(0).trace_id < 2**128 for _ in range(100))


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-00 ",
        f"01-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        "nonsense",
    ],
)
def test_the_callers_trace_is_that_of_its_span_however_it_is_found(header: str) -> None:
    parent = read_parent(header)

    assert caller_trace(header) == (None if parent is None else parent.trace_hex)
