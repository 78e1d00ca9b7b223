"""The form of a span: its place in the trace, its times, and its attributes without secrets and within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from llmproxy_core.trace_context import TraceContext
from llmproxy_server.log_events import get_logger
from llmproxy_server.log_redact import Redaction

_NANO = 1_000_000_000
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_MOST = 128  # attributes of a span, events and links: the standard's default
_log = get_logger()
Attributes = dict[str, AttributeValue]


@attrs.frozen(eq=False)
class SpanForm:
    """What all spans of one gateway share."""

    resource: Resource
    scope: InstrumentationScope
    redact: Redaction
    limits: SpanLimits

    def attributes(self, found: Attributes) -> Mapping[str, AttributeValue]:
        """*found* without secrets, and within the limits; those that come first are kept."""
        texts = [value if isinstance(value, str) else "\n".join(map(str, value)) for value in _texts(found)]
        if self.redact.found_in("\n".join(texts)):
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


def _texts(found: Attributes) -> Iterator[str | tuple[object, ...]]:
    for value in found.values():
        if isinstance(value, str | tuple):
            yield value


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
        self._state = TraceState.from_header([trace.state]) if trace.state else None

    def span(
        self,
        name: str,
        kind: SpanKind,
        span_id: int,
        parent_id: int | None,
        times_s: tuple[float, float],
        *,
        attributes: Attributes,
        failed: bool,
        parent_is_remote: bool = False,
    ) -> ReadableSpan:
        start_ns = self._ns(times_s[0])
        parent = None if parent_id is None else self._context(parent_id, is_remote=parent_is_remote)
        return ReadableSpan(
            name=self._form.redact(name),
            context=self._context(span_id),
            parent=parent,
            resource=self._form.resource,
            attributes=self._form.attributes(attributes),
            kind=kind,
            status=Status(StatusCode.ERROR) if failed else Status(),
            start_time=start_ns,
            end_time=max(self._ns(times_s[1]), start_ns),
            instrumentation_scope=self._form.scope,
        )

    def _context(self, span_id: int, *, is_remote: bool = False) -> SpanContext:
        return SpanContext(self.trace.trace_id, span_id, is_remote, _SAMPLED, self._state)

    def _ns(self, seconds: float) -> int:
        return int(seconds * _NANO) + self._behind_ns
