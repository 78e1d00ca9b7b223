"""Spans are encoded here instead of by OpenTelemetry's SDK, and mean the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from llmproxy_core.secret import Secret
from llmproxy_core.trace_context import TraceContext
from llmproxy_server.log_redact import Redaction
from llmproxy_server.telemetry import encoding
from llmproxy_server.telemetry.encoding import EncodedSpans, encoded_source, take_encoded
from llmproxy_server.telemetry.span_form import Attributes, Making, SpanForm
from tests.otlp_receiver import collector

RESOURCE = Resource({"service.name": "it", "numbers": (1, 2)})
SCOPE = InstrumentationScope("llmproxy", "1", "https://opentelemetry.io/schemas/1.44.0")
TRACE_ID, SPAN_ID, PARENT_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, 7

short = st.text(st.characters(), max_size=8)  # halves of characters, too
scalars = st.one_of(
    short, st.booleans(), st.integers(-3, 3), st.integers(-(1 << 65), 1 << 65), st.floats(allow_nan=False)
)
lists = st.one_of(
    st.lists(short), st.lists(st.booleans()), st.lists(st.integers(-2, 2)), st.lists(st.sampled_from([0.0, 1.0]))
).map(tuple)
longer = st.integers(60, 70).map(lambda size: "x" * size)
attributes = st.dictionaries(
    st.sampled_from(["a", "b", "llmproxy.request.id", "c"]), st.one_of(scalars, lists, longer), max_size=4
)
states = st.sampled_from(["", "vendor=1", "a=1,b=2, c = 3", "no member", "a=1,a=2"])


def making(limits: SpanLimits | None = None, state: str = "", parent_id: int | None = PARENT_ID) -> Making:
    trace = TraceContext(TRACE_ID, SPAN_ID, sampled=True, parent_id=parent_id, state=state)
    return Making(SpanForm(Redaction([Secret("sk-very-secret")]), limits or SpanLimits()), trace, 1_000)


def decoded(span: bytes) -> Span:
    [found] = ScopeSpans.FromString(span).spans
    assert isinstance(found, Span)
    return found


def told(span: Span) -> Mapping[str, bytes]:
    """The attributes by their names: their order means nothing."""
    assert len({it.key for it in span.attributes}) == len(span.attributes)
    return {it.key: it.value.SerializeToString() for it in span.attributes}


@given(attributes, states, st.booleans(), st.booleans(), st.sampled_from([None, PARENT_ID]))
def test_a_span_means_what_the_sdk_would_have_made_of_it(
    found: Attributes, state: str, failed: bool, is_remote: bool, parent_id: int | None
) -> None:
    members = TraceState.from_header([state]) if state else None

    def context(span_id: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(TRACE_ID, span_id, remote, TraceFlags(1), members)

    expected = ReadableSpan(
        "POST /v1",
        context(SPAN_ID),
        None if parent_id is None else context(parent_id, remote=is_remote),
        RESOURCE,
        found,
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR) if failed else Status(),
        start_time=2_000_001_000,
        end_time=3_000_001_000,
        instrumentation_scope=SCOPE,
    )
    [wanted] = encode_spans([expected]).resource_spans[0].scope_spans[0].spans

    span = decoded(
        making(state=state).span(
            "POST /v1",
            Span.SPAN_KIND_CLIENT,
            SPAN_ID,
            parent_id,
            (2.0, 3.0),
            attributes=found,
            failed=failed,
            parent_is_remote=is_remote,
        )
    )

    assert told(span) == told(wanted)
    assert span.status.code == wanted.status.code
    for whole in (span, wanted):
        del whole.attributes[:]
        whole.ClearField("status")
    assert span == wanted


def one(found: Attributes, limits: SpanLimits | None = None) -> Span:
    times_s = (1.0, 2.0)
    return decoded(
        making(limits).span("it", Span.SPAN_KIND_SERVER, SPAN_ID, None, times_s, attributes=found, failed=False)
    )


def test_values_that_are_equal_and_of_other_kinds_are_kept_apart() -> None:
    kinds = [one({"a": value}).attributes[0].value.WhichOneof("value") for value in (1, True, 1.0, "1", ("1",), (1,))]

    assert kinds == ["int_value", "bool_value", "double_value", "string_value", "array_value", "array_value"]


@pytest.mark.parametrize("value", [1, 1.5], ids=["remembered", "not remembered"])
def test_a_name_that_cannot_be_written_costs_no_other_attribute(value: float) -> None:
    span = one({"before": 0.5, "half \ud83d": value, "behind": 2.5})

    assert [(it.key, it.value.double_value) for it in span.attributes] == [("before", 0.5), ("behind", 2.5)]


def test_a_secret_is_remembered_nowhere() -> None:
    span = one({"a": "Bearer sk-very-secret", "b": ("sk-very-secret",)})

    assert span.attributes[0].value.string_value == "Bearer ***"
    assert b"very" not in span.SerializeToString()


def test_what_does_not_fit_the_limits_is_counted() -> None:
    span = one({"first": 1, "second": "long", "third": 3}, SpanLimits(max_span_attributes=2, max_attribute_length=2))

    assert {it.key: it.value.string_value or it.value.int_value for it in span.attributes} == {
        "first": 1,
        "second": "lo",
    }
    assert span.dropped_attributes_count == 1


def test_what_is_remembered_is_bounded() -> None:
    for number in range(encoding._REMEMBERED + 100):
        one({"number": number})

    assert encoding._remembered.cache_info().currsize == encoding._REMEMBERED


def test_a_batch_is_one_export_of_one_source() -> None:
    ours = [
        making().span("it", Span.SPAN_KIND_SERVER, number, None, (1.0, 2.0), attributes={"a": 1}, failed=False)
        for number in (1, 2)
    ]

    [part] = EncodedSpans(ours, encoded_source(RESOURCE, SCOPE)).request().resource_spans
    [scoped] = part.scope_spans

    assert {it.key for it in part.resource.attributes} == {"service.name", "numbers"}
    assert (scoped.scope.name, scoped.scope.version, scoped.schema_url) == ("llmproxy", "1", SCOPE.schema_url)
    assert [it.span_id for it in scoped.spans] == [bytes(7) + b"\1", bytes(7) + b"\2"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_who_else_exports_spans_in_this_process_still_may(protocol: str) -> None:
    """A plugin, say, with an exporter of its own."""
    module = over_grpc if protocol == "grpc" else over_http
    for _ in range(2):
        take_encoded(module)
    context = SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=TraceFlags(1))
    theirs = ReadableSpan("theirs", context, resource=RESOURCE, start_time=1, end_time=2)
    async with collector(protocol) as receiver:
        endpoint = receiver.endpoint if protocol == "grpc" else f"{receiver.endpoint}/v1/traces"
        exporter = module.OTLPSpanExporter(endpoint=endpoint)
        result = await asyncio.to_thread(exporter.export, [theirs])
        exporter.shutdown()

    assert result.name == "SUCCESS"
    assert [it.name for it in receiver.spans] == ["theirs"]
