"""The form of a span: its place in the trace, its times, and its attributes without secrets and within the limits."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import TraceState
from opentelemetry.util.types import AttributeValue

from llmproxy_core.trace_context import TraceContext
from llmproxy_server.log_events import get_logger
from llmproxy_server.log_redact import Redaction
from llmproxy_server.telemetry.encoding import add_attributes, serialised

_NANO = 1_000_000_000
_OWN_PARENT = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE_PARENT = _OWN_PARENT | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_MOST = 128  # attributes of a span, events and links: the standard's default
_log = get_logger()
Attributes = dict[str, AttributeValue]


@attrs.frozen(eq=False)
class SpanForm:
    """What all spans of one gateway share."""

    redact: Redaction
    limits: SpanLimits

    def attributes(self, found: Attributes) -> Mapping[str, AttributeValue]:
        """*found* without secrets, and within the limits; those that come first are kept."""
        if self.redact.found_in("\n".join(_texts(found))):
            found = {name: self._redacted(value) for name, value in found.items()}
        most, longest = self.limits.max_span_attributes, self.limits.max_span_attribute_length
        if longest is None and (most is None or len(found) <= most):
            return found
        # A full one forgets what it got first, so it gets what is most worth keeping last.
        return BoundedAttributes(most, dict(reversed(found.items())), max_value_len=longest)

    def _redacted(self, value: AttributeValue) -> AttributeValue:
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, tuple) and value and isinstance(value[0], str):
            return tuple(self.redact(str(it)) for it in value)
        return value


def _texts(found: Attributes) -> list[str]:
    return [
        value if isinstance(value, str) else "\n".join(map(str, value))
        for value in found.values()
        if isinstance(value, str | tuple)
    ]


def read_limits() -> SpanLimits:
    """The standard's limits, of the environment; its defaults where these variables cannot be read."""
    try:
        return SpanLimits()
    except ValueError as error:
        _log.warning("the limits of spans are those of the standard", reason=str(error)[:256])
        none = SpanLimits.UNSET
        return SpanLimits(_MOST, _MOST, _MOST, _MOST, _MOST, _MOST, none, none)


class Making:
    """What all spans of one call share."""

    def __init__(self, form: SpanForm, trace: TraceContext, behind_ns: int) -> None:
        self.trace = trace
        self._form = form
        self._behind_ns = behind_ns
        self._trace_id = bytes.fromhex(trace.trace_hex)
        self._state = _members(trace.state) if trace.state else None

    def span(
        self,
        name: str,
        kind: Span.SpanKind.ValueType,
        span_id: int,
        parent_id: int | None,
        times_s: tuple[float, float],
        *,
        attributes: Attributes,
        failed: bool,
        parent_is_remote: bool = False,
    ) -> bytes:
        """See encoding.EncodedSpans."""
        start_ns = self._ns(times_s[0])
        kept = self._form.attributes(attributes)
        alone = ScopeSpans()
        span = alone.spans.add(
            trace_id=self._trace_id,
            span_id=_id(span_id),
            trace_state=self._state,
            parent_span_id=None if parent_id is None else _id(parent_id),
            flags=_REMOTE_PARENT if parent_is_remote and parent_id is not None else _OWN_PARENT,
            name=self._form.redact(name),
            kind=kind,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=max(self._ns(times_s[1]), start_ns),
            dropped_attributes_count=len(attributes) - len(kept),
        )
        if failed:
            span.status.code = Status.STATUS_CODE_ERROR
        add_attributes(span, kept)
        return serialised(alone)

    def _ns(self, seconds: float) -> int:
        return int(seconds * _NANO) + self._behind_ns


def _id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _members(state: str) -> str:
    """*state* without what is no member of a `tracestate`."""
    return ",".join(f"{key}={value}" for key, value in TraceState.from_header([state]).items())
