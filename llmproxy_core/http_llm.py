"""An LLM reached over HTTP: a dialect, a transport, and the configuration of one `[llm.NAME]`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from llmproxy_core.attempt import Attempt
from llmproxy_core.carried import SEAL_MARK
from llmproxy_core.chat import changed
from llmproxy_core.dialect import Api, Dialect, Operation, ReplyHead
from llmproxy_core.errors import (
    ProxyError,
    Unsupported,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    too_long,
)
from llmproxy_core.estimate import BILLED_OPERATIONS, estimated_usage
from llmproxy_core.exchange import Exchange
from llmproxy_core.http_answer import Crossing, is_encoded
from llmproxy_core.http_body import request_body
from llmproxy_core.http_opaque import OpaqueCalls
from llmproxy_core.http_plan import Plan, Plans
from llmproxy_core.http_prices import ModelPrices
from llmproxy_core.llm import FixedHeaders, Transport, UpstreamRequest, UpstreamResponse
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.outcome import End
from llmproxy_core.prices import ModelPrice
from llmproxy_core.request import Request
from llmproxy_core.response import Reply, Response, Stream, redact_error
from llmproxy_core.secret import Secret
from llmproxy_core.services import Services
from llmproxy_core.token_clock import clocked
from llmproxy_core.upstream_read import read_whole
from llmproxy_core.upstream_url import base_url

SPAN_HEADERS = frozenset({"traceparent", "tracestate"})
TRACE_HEADERS = SPAN_HEADERS | {"baggage"}
# As globals a fifth as dear: each call asks for them.
_CHAT, _MODELS, _OPAQUE = Operation.CHAT, Operation.MODELS, Operation.OPAQUE
_EVENTS_LONGER = 4  # than the same answer in one piece: each of them repeats what stands around its few words
_IDENTITY = ("accept-encoding", "identity")
_JSON = ("content-type", "application/json")
_WITHOUT_USAGE = frozenset({Operation.MODELS, Operation.COUNT_TOKENS})
COUNTED_HEADER = "x-llmproxy-token-count"
"""Says of a count of tokens that no provider made it."""


class HttpLLM:
    """Sends each exchange as one HTTP call and gives the answer with the dialect and price it came with."""

    def __init__(
        self,
        config: HttpLLMConfig,
        dialect: Dialect,
        services: Services,
        *,
        base: str | None = None,
        model_base: str | None = None,
        query: str = "",
        auth: Callable[[Secret], list[tuple[str, str]]] | None = None,
    ) -> None:
        """
        *dialect* is what the provider speaks for the configured `type`.

        For one that is called otherwise than the dialect says: *base* is put before every path; *model_base* instead
        before those of operations that name a model in their body, `{model}` in it stands for that name; *query* is in
        every URL; *auth* makes the headers that present our key.
        """
        self._config = config
        self._dialect = dialect
        self._services = services
        self._transport: Transport = services.transport(config.connections)
        self._clocks = config.timeouts
        self._answer = self._read_in_time if config.timeouts.first_token_s else self._read
        base = base_url(config.base_url, dialect) if base is None else base

        constant = _constant_headers(config, dialect, auth or dialect.auth_headers)
        ours = {name for name, _ in constant}
        # What the operator sets is stronger than what the protocol does.
        identity = [pair for pair in [_IDENTITY] if pair[0] not in ours] + constant
        self._fixed = FixedHeaders(identity)
        self._fixed_with_body = FixedHeaders([pair for pair in [_JSON] if pair[0] not in ours] + identity)
        self._defaults = [pair for pair in dialect.default_headers() if pair[0] not in ours]
        self._passed = (dialect.request_headers | TRACE_HEADERS) - ours
        # Where we trace, the client's own place in the trace is not ours to pass on; unless the operator says which.
        self._names_trace = "traceparent" in ours
        self._passed_traced = self._passed - SPAN_HEADERS

        self._prices = ModelPrices(config.prices, base, services.prices)
        self._plans = Plans(config, dialect, self._prices, base=base, model_base=model_base, query=query)
        self._kept_plans = self._plans.kept
        self.models = self._plans.models
        self._crossing = Crossing(dialect, tuple(_secrets(config)), config.max_response_bytes)
        self.redact = self._crossing.redact
        self._opaque = OpaqueCalls(
            config,
            dialect,
            self._transport,
            self._crossing,
            base=base,
            query=query,
            passed=self._passed,
            passed_traced=self._passed_traced,
            fixed=self._fixed,
        )

    async def aclose(self) -> None:
        """The transport belongs to the gateway: other LLMs may share it."""

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        sent = self._config.model if model is None else self.models.sent(model)
        if sent is None:
            return () if model is not None else (None,)  # a request that names none: the provider chooses
        return (await self._prices.of(sent),)

    async def send(self, exchange: Exchange) -> Response:
        request = exchange.request
        if request.operation is _OPAQUE or request.continues:
            return await self._send_otherwise(exchange)
        head, own = request.head, request.api
        key = None if own is None or request.query else (own.name, head.model, head.stream, head.wants_usage)
        plan = self._kept_plans.get(key)
        body: bytes | None
        if plan is None:
            if (plan := await self._plans.make(request, key)) is None:
                return await self._count_here(exchange)
            body = self._body(exchange, plan) if plan[0].has_body else None
        elif not plan[5] or (body := request.body).rfind(SEAL_MARK) >= 0:
            body = self._body(exchange, plan)
        api, sent, url, _, _, _ = plan
        attempt, trace = exchange.attempt(self._config.name, sent), exchange.trace
        passed, span = self._passed, ""
        if trace is not None and not self._names_trace:
            passed, span = self._passed_traced, trace.lines(attempt.span_id or None)
        adds = self._defaults or not passed.isdisjoint(request.headers.first)
        headers = self._headers(request, passed) if adds else []
        upstream = UpstreamRequest(
            api.method,
            url,
            headers,
            body,
            self._fixed if body is None else self._fixed_with_body,
            span,
            None,
            exchange.may_repeat,
        )
        exchange.attempts.append(attempt)
        if exchange.deadline_s is not None:
            upstream.left_s = exchange.deadline_s - attempt.started_s
        try:
            answer = await self._transport.open(upstream, self._clocks)
            first = answer.headers.first
            attempt.headers_s, attempt.status = exchange.clock(), answer.status
            attempt.upstream_id = first.get("x-request-id") or first.get("request-id")
            if not 200 <= answer.status < 300:
                raise await self._crossing.error(answer, attempt)
        except BaseException as error:
            self._unanswered(exchange, plan, attempt, upstream, error)
            raise
        finally:
            attempt.sent_s = upstream.sent_s
            if upstream.repeated:
                exchange.note_repeated(attempt)
        streams = api.operation is _CHAT and api.streams is not False
        streams = streams and first.get("content-type", "").lower().startswith(api.stream_type)
        if not streams and "content-encoding" not in first and (whole := answer.body.whole()) is not None:
            return self._reply(exchange, plan, answer, attempt, whole)
        return await self._answer(exchange, plan, answer, attempt, streams)

    # -- the call ------------------------------------------------------------------------------------------------

    def _body(self, exchange: Exchange, plan: Plan) -> bytes:
        return request_body(exchange, self._config, self._dialect, plan[0], plan[1])

    def _headers(self, request: Request, passed: frozenset[str]) -> list[tuple[str, str]]:
        """What stands before the fixed ones: of the client's, those of the names *passed*."""
        theirs = request.headers
        headers = theirs.pick(passed)
        if self._defaults:
            headers += [pair for pair in self._defaults if pair[0] not in theirs]
        return headers

    # -- the answer ----------------------------------------------------------------------------------------------

    async def _read(
        self, exchange: Exchange, plan: Plan, answer: UpstreamResponse, attempt: Attempt, streams: bool
    ) -> Response:
        """A Stream for an event stream, else a Reply, read whole and looked at."""
        pieces: list[bytes] = []
        try:
            if is_encoded(answer):
                raise UpstreamGarbage("The upstream answered in a content encoding it was not asked for")
            if streams:
                return self._stream(exchange, plan, answer, attempt)
            await read_whole(answer, self._config.max_response_bytes, pieces)
        except BaseException as error:
            self._broken_off(exchange, plan, answer, attempt, error, read=b"".join(pieces))
            raise
        whole = b"".join(pieces)
        return self._reply(exchange, plan, answer, attempt, whole, read=whole)

    def _reply(
        self,
        exchange: Exchange,
        plan: Plan,
        answer: UpstreamResponse,
        attempt: Attempt,
        whole: bytes,
        *,
        read: bytes | None = None,
    ) -> Reply:
        """What was answered is *whole*; *read* is the same where it did not come at once."""
        api, _, _, price, as_asked, _ = plan
        try:
            if len(whole) > self._config.max_response_bytes:
                read = whole
                raise too_long(self._config.max_response_bytes)
            head = ReplyHead() if api.operation in _WITHOUT_USAGE else self._dialect.scan_reply(api, whole)
        except BaseException as error:
            if isinstance(error, UpstreamError):
                redact_error(error, self.redact)
            self._broken_off(exchange, plan, answer, attempt, error, read=read or b"")
            raise
        if read is not None:
            answer.body.release()
        reply = Reply(
            exchange,
            whole,
            dialect=self._dialect,
            api=api,
            head=head,
            status=answer.status,
            headers=self._crossing.headers(answer, attempt),
            llm=self._config.name,
            price=price,
            attempt=attempt,
        )
        client = exchange.client
        if client is None or client.model is None or client.model != attempt.model:
            reply.shown_model = self._shown(exchange, attempt)
        reply.tokenizer = self._services.tokenizer
        if not head.finish or not as_asked:
            self._understand(reply, api, exchange.request)
        return reply

    def _stream(self, exchange: Exchange, plan: Plan, answer: UpstreamResponse, attempt: Attempt) -> Stream:
        api, _, _, price, _, _ = plan
        body, gap_s = answer.body, self._config.timeouts.between_tokens_s
        if gap_s:
            body = clocked(body, self._dialect.reader(api), gap_s, self._services.tasks)
        stream = Stream(
            exchange,
            body,
            dialect=self._dialect,
            api=api,
            status=answer.status,
            headers=self._crossing.headers(answer, attempt),
            llm=self._config.name,
            price=price,
            redact=self.redact,
            attempt=attempt,
        )
        stream.shown_model = self._shown(exchange, attempt)
        stream.tokenizer = self._services.tokenizer
        stream.max_bytes = self._config.max_response_bytes * _EVENTS_LONGER
        return stream

    def _broken_off(
        self,
        exchange: Exchange,
        plan: Plan,
        answer: UpstreamResponse,
        attempt: Attempt,
        error: BaseException,
        *,
        read: bytes,
    ) -> None:
        """The answer had begun, and *error* is why there is none, after so much was *read* of it."""
        answer.body.close()
        if isinstance(error, ProxyError):
            attempt.failed(error, exchange.clock())
        if not isinstance(error, ProxyError) or isinstance(error, UpstreamTimeout | UpstreamCut | UpstreamGarbage):
            self._bill_unanswered(exchange, plan, attempt, error, body=read)
        # else: a provider that reports an error bills nothing

    def _understand(self, reply: Reply, api: Api, request: Request) -> None:
        """
        Read what *reply* says, where that is to be done anyhow, to translate it, or it may say nothing: it has no end.

        UpstreamError when it is no answer, and it is finished: so that another LLM can still be asked.
        """
        try:
            if api.operation is _CHAT:
                reply.said()
            elif api.operation is Operation.EMBEDDINGS and (request.api is None or request.api.form != api.form):
                reply.vectors()
        except UpstreamError as error:
            redact_error(error, self.redact)
            reply.finish(End.of(error), error)
            raise

    async def _read_in_time(
        self, exchange: Exchange, plan: Plan, answer: UpstreamResponse, attempt: Attempt, streams: bool
    ) -> Response:
        """As `_read`; a Stream has begun to answer: UpstreamTimeout when that takes too long, and it is finished."""
        stream = await self._read(exchange, plan, answer, attempt, streams)
        most_s = self._config.timeouts.first_token_s
        if most_s is None or not isinstance(stream, Stream):
            return stream
        since_s = attempt.started_s if attempt.sent_s is None else attempt.sent_s
        limit = asyncio.timeout(since_s + most_s - stream.exchange.clock())
        try:
            async with limit:
                await stream.started()
        except TimeoutError:
            if not limit.expired():
                raise
            late = UpstreamTimeout(
                f"The first token did not come within {most_s:g} seconds", code="upstream_timeout_first_token"
            )
            stream.finish(End.of(late), late)
            raise late from None
        return stream

    def _shown(self, exchange: Exchange, attempt: Attempt) -> str | None:
        """The name that the client asked for, where another one was sent."""
        if not self._config.rewrite_model or exchange.operation is _MODELS:
            return None
        client = exchange.client
        asked = (None if client is None else client.model) or exchange.request.head.model
        return asked if asked is not None and asked != attempt.model else None

    def _unanswered(
        self, exchange: Exchange, plan: Plan, attempt: Attempt, upstream: UpstreamRequest, error: BaseException
    ) -> None:
        """There is not even the head of an answer."""
        if isinstance(error, ProxyError):
            attempt.failed(error, exchange.clock())
        if upstream.sent_s is not None and isinstance(error, UpstreamTimeout | asyncio.CancelledError):
            self._bill_unanswered(exchange, plan, attempt, error)

    def _bill_unanswered(
        self, exchange: Exchange, plan: Plan, attempt: Attempt, error: BaseException, *, body: bytes = b""
    ) -> None:
        """
        Add to the exchange what a call is estimated to have used that the provider took, and never answered whole.

        It has worked on it all the same: who leaves early, again and again, would else use it for nothing. *body* is
        what came.
        """
        api, _, _, price, _, _ = plan
        if api.operation not in BILLED_OPERATIONS:
            return
        head = ReplyHead(None, attempt.model)
        name = self._config.name
        reply = Reply(exchange, body, dialect=self._dialect, api=api, head=head, llm=name, price=price, attempt=attempt)
        reply.first_byte_s, reply.tokenizer = attempt.headers_s, self._services.tokenizer
        known = error if isinstance(error, ProxyError) else None
        reply.finish(End.ABANDONED if known is None else End.of(known), known)

    # -- what few ask --------------------------------------------------------------------------------------------

    async def _send_otherwise(self, exchange: Exchange) -> Response:
        """Where the request is none of those that `send` knows."""
        request = exchange.request
        if request.operation is _OPAQUE:
            return await self._opaque.send(exchange)
        exchange.request = self._continuing(request)
        return await self.send(exchange)

    def _continuing(self, request: Request) -> Request:
        """*request*, whose last turn is to be gone on with, in the provider's own way. Unsupported: there is none."""
        prefill = self._config.prefill or self._dialect.prefill
        if prefill == "no":
            raise Unsupported(f"The LLM '{self._config.name}' does not go on with an answer that has begun")
        chat = request.chat
        turn = changed(chat.messages[-1], prefix=prefill == "prefix")
        return request.with_chat(changed(chat, messages=(*chat.messages[:-1], turn)))

    async def _count_here(self, exchange: Exchange) -> Response:
        """The count of tokens of a request, by our own tokenizer, for a provider that offers none."""
        request = exchange.request
        if request.dialect is None or request.api is None:
            raise Unsupported(f"The LLM '{self._config.name}' does not count tokens")
        tokenizer = self._services.tokenizer
        await tokenizer.ready()
        tokens = estimated_usage(request, 0, tokenizer).input_tokens
        body = request.dialect.write_count(request.api, tokens)
        exchange.response_headers.append((COUNTED_HEADER, "estimated"))
        return Reply(exchange, body, dialect=request.dialect, api=request.api)


def _constant_headers(
    config: HttpLLMConfig, dialect: Dialect, auth: Callable[[Secret], list[tuple[str, str]]]
) -> list[tuple[str, str]]:
    headers = dict(dialect.constant_headers())
    if config.token is not None:
        headers.update(auth(config.token))
    for name, value in config.headers:
        headers[name] = value.reveal() if isinstance(value, Secret) else value
    return list(headers.items())


def _secrets(config: HttpLLMConfig) -> Iterator[Secret]:
    if config.token is not None:
        yield config.token
    yield from (key.token for key in config.keys)
    yield from (value for _, value in config.headers if isinstance(value, Secret))
