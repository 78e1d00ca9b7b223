"""Calls that we know nothing about (`operations = ["opaque"]`): whatever they are, both ways in a stream."""

from __future__ import annotations

from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Dialect
from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.exchange import Exchange
from llmproxy_core.http_answer import Crossing
from llmproxy_core.llm import FixedHeaders, Transport, UpstreamRequest, UpstreamResponse, never
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.response import Stream
from llmproxy_core.upstream_url import without_credentials

REQUEST_HEADERS = frozenset({"accept", "content-type", "content-encoding", "range", "if-none-match"})
RESPONSE_HEADERS = frozenset(
    {
        "accept-ranges",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-range",
        "etag",
        "last-modified",
        "retry-after",
    }
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OpaqueCalls:
    """Sends them for one LLM. Only the head is ours, and what an error quotes of our keys."""

    def __init__(
        self,
        config: HttpLLMConfig,
        dialect: Dialect,
        transport: Transport,
        crossing: Crossing,
        *,
        base: str,
        query: str,
        passed: frozenset[str],
        passed_traced: frozenset[str],
        fixed: FixedHeaders,
    ) -> None:
        """
        *base* and *query* are as in `HttpLLM`.

        *passed* are the client's headers that go on besides those of any such call, *passed_traced* where we trace, and
        *fixed* ours.
        """
        self._name = config.name
        self._clocks = config.timeouts
        self._dialect = dialect
        self._transport = transport
        self._crossing = crossing
        self._base = base
        self._query = query
        ours = fixed.names
        self._passed = (passed | REQUEST_HEADERS) - ours
        self._passed_traced = (passed_traced | REQUEST_HEADERS) - ours
        self._fixed = fixed
        self._names_trace = "traceparent" in ours

    async def send(self, exchange: Exchange) -> Stream:
        request = exchange.request
        query = without_credentials(request.query)
        if self._query:
            query = f"{query}&{self._query}" if query else f"?{self._query}"
        url = self._base + request.relative_path + query
        attempt = exchange.attempt(self._name, None)
        passed, span, trace = self._passed, "", exchange.trace
        if trace is not None and not self._names_trace:
            passed, span = self._passed_traced, trace.lines(attempt.span_id or None)
        headers = request.headers.pick(passed)
        upstream = UpstreamRequest(request.method, url, headers, request.content, self._fixed, span)
        exchange.attempts.append(attempt)
        if exchange.deadline_s is not None:
            upstream.left_s = exchange.deadline_s - attempt.started_s
        # What others do may be done, though nobody has said so.
        upstream.may_repeat = exchange.may_repeat if request.method in _SAFE_METHODS else never
        try:
            answer = await self._transport.open(upstream, self._clocks)
            attempt.headers_s, attempt.status = exchange.clock(), answer.status
            first = answer.headers.first
            attempt.upstream_id = first.get("x-request-id") or first.get("request-id")
            if answer.status >= 400:
                raise await self._error(answer, attempt, exchange)
        except ProxyError as error:
            attempt.failed(error, exchange.clock())
            raise
        finally:
            attempt.sent_s = upstream.sent_s
            if upstream.repeated:
                exchange.note_repeated(attempt)
        crossing = self._crossing.headers(answer, attempt) + answer.headers.pick(RESPONSE_HEADERS)
        return Stream(
            exchange,
            answer.body,
            dialect=self._dialect,
            api=None,
            status=answer.status,
            headers=list(dict.fromkeys(crossing)),
            content_type=answer.headers.get("content-type") or "application/octet-stream",
            llm=self._name,
            attempt=attempt,
        )

    async def _error(self, answer: UpstreamResponse, attempt: Attempt, exchange: Exchange) -> UpstreamError:
        """Its body goes to the client as it came, whatever that one speaks."""
        error = await self._crossing.error(answer, attempt)
        if error.received is not None:  # else the body is ours, and these are not about it
            assert exchange.request.dialect is not None
            error.dialect = exchange.request.dialect.name
            more = answer.headers.pick(RESPONSE_HEADERS)
            error.headers = tuple(dict.fromkeys([*error.headers, *more]))
        return error
