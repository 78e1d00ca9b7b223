"""
Spans as OTLP has them, written by OpenTelemetry's own protobuf classes.

The SDK's encoder makes a message of each part of a span and copies it into the next larger one, up to the batch. Here
each attribute is serialised once and remembered: messages of protobuf that stand one behind the other are one with all
that they say, so that a span is its attributes joined, and a batch its spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import ModuleType

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT
from opentelemetry.util.types import AttributeValue

from llmproxy_server.telemetry.conventions import OF_ONE_CALL

_REMEMBERED = 2048  # attributes
_LONGEST = 64  # characters of a text that is remembered
_MOST = 8  # texts of a list that is remembered
_Encode = Callable[[Sequence[ReadableSpan]], ExportTraceServiceRequest]


class EncodedSpans(list[bytes]):
    """A batch as an exporter gets it. Each is a `ScopeSpans` of one span, serialised."""

    __slots__ = ("_source",)

    def __init__(self, spans: Iterable[bytes], source: bytes) -> None:
        """*source*: see encoded_source."""
        super().__init__(spans)
        self._source = source

    def request(self) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        request.MergeFromString(self._source)
        all_of_them = request.resource_spans[0].scope_spans[0]
        for span in self:  # one by one, since nothing else runs in this process meanwhile: spans may hold conversations
            all_of_them.MergeFromString(span)
        return request


def encoded_source(resource: Resource, scope: InstrumentationScope) -> bytes:
    """Who spans are from, as an export of none."""
    one = ReadableSpan("", INVALID_SPAN_CONTEXT, resource=resource, instrumentation_scope=scope)
    request = encode_spans([one])
    del request.resource_spans[0].scope_spans[0].spans[:]
    return serialised(request)


def take_encoded(exporters: ModuleType) -> None:
    """
    Let the exporters of *exporters*, one of OpenTelemetry's modules, take `EncodedSpans` as well as what the SDK makes.

    They have no place for another encoder: they look theirs up in their module with each batch.
    """
    encode: _Encode = vars(exporters)["encode_spans"]
    if not isinstance(encode, _Encoding):
        vars(exporters)["encode_spans"] = _Encoding(encode)


class _Encoding:
    def __init__(self, of_sdk: _Encode) -> None:
        self._of_sdk = of_sdk

    def __call__(self, spans: Sequence[ReadableSpan] | EncodedSpans) -> ExportTraceServiceRequest:
        return spans.request() if isinstance(spans, EncodedSpans) else self._of_sdk(spans)


def add_attributes(span: Span, found: Mapping[str, AttributeValue]) -> None:
    """What OTLP has no form for is left out, as the SDK does it."""
    again = []
    for name, value in found.items():
        if _comes_again(name, value):
            again.append(_remembered(name, value))
        else:
            _add(span, name, value)
    span.MergeFromString(b"".join(again))


def _comes_again(name: str, value: AttributeValue) -> bool:
    """Whether it may, and is small enough to be remembered."""
    if isinstance(value, str):
        return len(value) <= _LONGEST and name not in OF_ONE_CALL
    if isinstance(value, tuple):
        return len(value) <= _MOST and all(isinstance(it, str) and len(it) <= _LONGEST for it in value)
    return isinstance(value, int)


@lru_cache(_REMEMBERED, typed=True)
def _remembered(name: str, value: AttributeValue) -> bytes:
    """As a `Span` that has nothing else."""
    span = Span()
    _add(span, name, value)
    return serialised(span)


def _add(span: Span, name: str, value: AttributeValue) -> None:
    said = span.attributes.add()
    try:
        said.key = name
        _fill(said.value, value)
    except (ValueError, TypeError):  # a number of more than 64 bits, half a character
        del span.attributes[-1]


def serialised(message: ExportTraceServiceRequest | ScopeSpans | Span) -> bytes:
    found: bytes = message.SerializeToString()
    return found


def _fill(message: AnyValue, value: object) -> None:
    match value:
        case bool():
            message.bool_value = value
        case str():
            message.string_value = value
        case int():
            message.int_value = value
        case float():
            message.double_value = value
        case bytes():
            message.bytes_value = value
        case None:
            message.SetInParent()
        case Sequence():
            message.array_value.SetInParent()
            for it in value:
                _fill(message.array_value.values.add(), it)
        case _:
            raise TypeError(type(value).__name__)
