"""The spans of a call that is over: one of ours, one for each attempt upstream, one for processors that call others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.util.types import AttributeValue

from llmproxy_core.attempt import Attempt, ChildCall
from llmproxy_core.gateway import Gateway
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.outcome import End, KeptBody, Outcome
from llmproxy_server.log_redact import Redaction
from llmproxy_server.record import Ended
from llmproxy_server.telemetry import conventions as names
from llmproxy_server.telemetry.content import Content
from llmproxy_server.telemetry.inference import cut, request_attributes, response_attributes
from llmproxy_server.telemetry.span_form import Attributes, Making, SpanForm, read_limits

_NANO = 1_000_000_000
_PORTS = {"http": 80, "https": 443}
_LONGEST = 1024  # characters of a value that others chose


class Spans:
    """
    Makes the spans of the calls of one gateway, in whatever thread. Nothing that it reads changes any more.

    *content* says what was asked and answered; None: nobody wants that. *redact* cuts out what others echo of our
    secrets.
    """

    def __init__(self, gateway: Gateway, redact: Redaction, content: Content | None = None) -> None:
        self._form = SpanForm(redact, read_limits())
        self._redact = redact
        self._content = content
        self._steps = {(route.name, str(kind)): it for route in gateway.routes for kind, it in route.steps.items()}
        self._llms = {name: _llm_attributes(name, llm) for name, llm in gateway.config.llms.items()}

    def of(self, ended: Ended, bill: Outcome, behind_ns: int) -> Iterator[bytes]:
        """
        Each as encoding.EncodedSpans has it.

        *behind_ns* is what the epoch's clock was ahead of the monotonic one of the exchange's times.
        """
        trace = ended.exchange.trace
        assert trace is not None
        making = Making(self._form, trace, behind_ns)
        over_s = max(bill.ended_s, ended.outcome.ended_s)
        yield self._server(making, ended, bill)
        attempts = ended.exchange.attempts
        alone = not self._steps.get((ended.exchange.route, str(ended.exchange.operation)))
        for index, attempt in enumerate(attempts):
            if alone and index == len(attempts) - 1:
                body = ended.body  # nobody changed it on the way to the client
            else:
                body = _own_answer(attempt, ended.body)
            yield self._attempt(making, attempt, trace.span_id, over_s, body)
        for call in ended.exchange.child_calls:
            yield from self._child(making, call, trace.span_id, over_s)

    # -- the call itself -----------------------------------------------------------------------------------------

    def _server(self, making: Making, ended: Ended, bill: Outcome) -> bytes:
        call, exchange, outcome = ended.call, ended.exchange, ended.outcome
        incoming = call.incoming
        method = call.method if call.method in names.METHODS else "_OTHER"
        attributes: Attributes = {
            names.HTTP_METHOD: method,
            names.HTTP_STATUS: ended.status,
            names.HTTP_ROUTE: exchange.route,
            names.URL_PATH: cut(call.path, _LONGEST, self._redact),
            names.URL_SCHEME: "https" if incoming.secure else "http",
            names.PROTOCOL_VERSION: f"{incoming.version[0]}.{incoming.version[1]}",
            names.CLIENT_ADDRESS: call.address,
            names.REQUEST_ID: call.request_id,
            names.OPERATION: str(exchange.operation),
            names.END: str(outcome.end),
            names.ATTEMPTS: len(exchange.attempts) + len(exchange.child_attempts),
        }
        if exchange.passed_over:
            attributes[names.PASSED_OVER] = tuple(self._cut(_passed_over(it)) for it in exchange.passed_over)
        if steps := self._steps.get((exchange.route, str(exchange.operation))):
            attributes[names.PROCESSORS] = steps
        if bill.cost is not None:
            attributes[names.COST_USD] = bill.cost.nanodollars / _NANO
        for name, value in exchange.log_fields.items():
            if isinstance(value, str | bool | int | float):
                attributes.setdefault(names.OURS + name, self._cut(value) if isinstance(value, str) else value)
        if self._content is not None and ended.body is not None:
            attributes.update(self._content.answered(ended.body))
        failed = outcome.end is End.FAILED or ended.status >= 500
        if outcome.error is not None:
            attributes[names.ERROR_TYPE] = self._cut(outcome.error.code)
        elif failed:
            attributes[names.ERROR_TYPE] = str(ended.status)
        name = f"{method if method != '_OTHER' else 'HTTP'} {exchange.route}"
        return making.span(
            name,
            Span.SPAN_KIND_SERVER,
            making.trace.span_id,
            making.trace.parent_id,
            (call.began_s, outcome.ended_s),
            attributes=attributes,
            failed=failed,
            parent_is_remote=True,
        )

    # -- processors that call others -----------------------------------------------------------------------------

    def _child(self, making: Making, call: ChildCall, parent_id: int, over_s: float) -> Iterator[bytes]:
        ended_s = over_s if call.ended_s is None else call.ended_s
        failed = bool(call.attempts) and call.attempts[-1].error is not None
        attributes: Attributes = {names.PROCESSOR: call.processor}
        if failed and (error := call.attempts[-1].error) is not None:
            attributes[names.ERROR_TYPE] = self._cut(error.code)
        yield making.span(
            f"processor {call.processor}",
            Span.SPAN_KIND_INTERNAL,
            call.span_id,
            parent_id,
            (call.started_s, ended_s),
            attributes=attributes,
            failed=failed,
        )
        for attempt in call.attempts:
            yield self._attempt(making, attempt, call.span_id, ended_s, _own_answer(attempt, None))
        for inner in call.calls:
            yield from self._child(making, inner, call.span_id, over_s)

    # -- calls upstream ------------------------------------------------------------------------------------------

    def _attempt(
        self, making: Making, attempt: Attempt, parent_id: int, over_s: float, answered: KeptBody | None
    ) -> bytes:
        began_s = attempt.started_s if attempt.sent_s is None else attempt.sent_s
        request, outcome = attempt.request, attempt.outcome
        operation = None if request is None else names.operation_name(request.operation, request.api)
        attributes: Attributes = dict(self._llms.get(attempt.llm, {names.LLM: attempt.llm}))
        if attempt.model is not None:
            attributes[names.REQUEST_MODEL] = self._cut(attempt.model)
        if operation is not None and request is not None:
            attributes[names.OPERATION_NAME] = operation
            attributes.update(request_attributes(request, self._redact))
            if self._content is not None:
                attributes.update(self._content.asked(request))
                if answered is not None:
                    attributes.update(self._content.answered(answered))
        if outcome is not None:
            attributes.update(response_attributes(outcome, began_s, self._redact))
        if attempt.status is not None:
            attributes[names.HTTP_STATUS] = attempt.status
        if attempt.upstream_id is not None:
            attributes[names.UPSTREAM_ID] = self._cut(attempt.upstream_id)
        if attempt.key is not None:
            attributes[names.ATTEMPT_KEY] = attempt.key
        if attempt.next is not None:
            attributes[names.ATTEMPT_NEXT] = self._cut(attempt.next)
        error = attempt.error or (None if outcome is None else outcome.error)
        if error is not None:
            attributes[names.ERROR_TYPE] = self._cut(error.code)
        subject = operation or ("call" if request is None else str(request.operation))
        return making.span(
            subject if attempt.model is None else f"{subject} {self._cut(attempt.model)}",
            Span.SPAN_KIND_CLIENT,
            attempt.span_id,
            parent_id,
            (began_s, over_s if attempt.ended_s is None else attempt.ended_s),
            attributes=attributes,
            failed=error is not None,
        )

    def _cut(self, text: str) -> str:
        return cut(text, _LONGEST, self._redact)


def _passed_over(attempt: Attempt) -> str:
    """Who was passed over and why, as `x-llmproxy-attempts` names them: `b/KEY_2 breaker_open`."""
    name = attempt.llm if attempt.key is None else f"{attempt.llm}/{attempt.key}"
    return name if attempt.error is None else f"{name} {attempt.error.code}"


def _own_answer(attempt: Attempt, answer: KeptBody | None) -> KeptBody | None:
    """What *attempt* answered, where a processor had that kept; what the client got, *answer*, may be another."""
    body = None if attempt.outcome is None else attempt.outcome.body
    return None if body is answer else body


def _llm_attributes(name: str, llm: LLMConfig) -> Mapping[str, AttributeValue]:
    found: Attributes = {names.LLM: name, names.PROVIDER_NAME: names.provider_name(llm)}
    if isinstance(llm, HttpLLMConfig):
        url = urlsplit(llm.base_url)
        found[names.SERVER_ADDRESS] = url.hostname or ""
        found[names.SERVER_PORT] = url.port or _PORTS.get(url.scheme, 0)
    return found
