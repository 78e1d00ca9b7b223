"""An LLM reached over HTTP: a dialect, a transport, and the configuration of one `[llm.NAME]`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import compress
from urllib.parse import quote

from llmproxy_core.attempt import Attempt
from llmproxy_core.carried import SEAL_MARK
from llmproxy_core.chat import changed
from llmproxy_core.dialect import Api, Dialect, Operation, ReplyHead
from llmproxy_core.errors import (
    ProxyError,
    ReceivedBody,
    RouteNotFound,
    Unsupported,
    UpstreamAuthError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    too_long,
)
from llmproxy_core.estimate import BILLED_OPERATIONS, estimated_usage
from llmproxy_core.exchange import Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm import FixedHeaders, Transport, UpstreamRequest, UpstreamResponse, never
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.model_map import ModelMap
from llmproxy_core.money import Price
from llmproxy_core.outcome import End
from llmproxy_core.path import check_path
from llmproxy_core.prices import ModelPrice
from llmproxy_core.request import CONVERSATIONS, Request
from llmproxy_core.response import Reply, Response, Stream, redact_error
from llmproxy_core.secret import Secret
from llmproxy_core.services import Services
from llmproxy_core.token_clock import clocked
from llmproxy_core.trace_context import TraceContext
from llmproxy_core.translation import CHANGED_HEADER, Translation
from llmproxy_core.upstream_read import read_head, read_whole
from llmproxy_core.upstream_url import base_url, passed_query, without_credentials

SPAN_HEADERS = frozenset({"traceparent", "tracestate"})
TRACE_HEADERS = SPAN_HEADERS | {"baggage"}
OPAQUE_REQUEST_HEADERS = frozenset({"accept", "content-type", "content-encoding", "range", "if-none-match"})
OPAQUE_RESPONSE_HEADERS = frozenset(
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
# As globals a fifth as dear: each call asks for them.
_CHAT, _MODELS, _OPAQUE = Operation.CHAT, Operation.MODELS, Operation.OPAQUE
_MAX_ERROR_BYTES = 1 << 20  # some validators quote the whole request
_EVENTS_LONGER = 4  # than the same answer in one piece: each of them repeats what stands around its few words
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_IDENTITY = ("accept-encoding", "identity")
_JSON = ("content-type", "application/json")
_WITHOUT_USAGE = frozenset({Operation.MODELS, Operation.COUNT_TOKENS})
_OWN_NAMES: Mapping[str, str] = FrozenMap()
COUNTED_HEADER = "x-llmproxy-token-count"
"""Says of a count of tokens that no provider made it."""
_REMEMBERED = 512  # the names of models are the callers' choice, so the memory of them is bounded
_REMEMBERED_HEADS = 64  # the names of an upstream's headers are its choice, and each memory is of all in one answer


_Asked = tuple[str, str | None, bool, bool]
"""What a request is sent by: the name of its API, its model, whether it streams, and asks for the usage then."""
_Plan = tuple[Api, str | None, str, Price | None, bool, bool]
"""
How it is sent: in which API, for which model, where to, and at what price.

Then whether a whole answer is in the form, and of the kind, that the request asks for; and whether its body goes out as
it came, but for what only some hold.
"""


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
        self._query = query
        self._auth = auth or dialect.auth_headers
        self._dialect = dialect
        self._services = services
        self._transport: Transport = services.transport(config.connections)
        self._apis = {api.name: api for api in dialect.apis}
        self._base = base_url(config.base_url, dialect) if base is None else base
        self._model_base = model_base
        self._secrets = tuple(secret.reveal() for secret in self._own_secrets())
        self._constant = self._constant_headers()
        ours = {name for name, _ in self._constant}
        self._passed = (dialect.request_headers | TRACE_HEADERS) - ours
        self._defaults = [pair for pair in dialect.default_headers() if pair[0] not in ours]
        self._passed_opaque = (self._passed | OPAQUE_REQUEST_HEADERS) - ours
        # Where we trace, the client's own place in the trace is not ours to pass on; unless the operator says which.
        self._names_trace = "traceparent" in ours
        self._passed_traced = self._passed - SPAN_HEADERS
        self._passed_opaque_traced = self._passed_opaque - SPAN_HEADERS
        # What the operator sets is stronger than what the protocol does.
        identity = [pair for pair in [_IDENTITY] if pair[0] not in ours] + self._constant
        self._fixed = FixedHeaders(identity)
        self._fixed_with_body = FixedHeaders([pair for pair in [_JSON] if pair[0] not in ours] + identity)
        # Of all names of an answer at once: nearly all answers of an upstream have the same.
        self._crosses = lru_cache(_REMEMBERED_HEADS)(lambda names: tuple(map(dialect.crosses, names)))
        self.models = ModelMap(config.models, config.model)
        self._prices: dict[str, ModelPrice | None] = {}
        self._finding = asyncio.Lock()
        self._clocks = config.timeouts
        self._answer = self._read_in_time if config.timeouts.first_token_s else self._read
        self._plans: dict[_Asked | None, _Plan] = {}

    def _constant_headers(self) -> list[tuple[str, str]]:
        headers = dict(self._dialect.constant_headers())
        if self._config.token is not None:
            headers.update(self._auth(self._config.token))
        for name, value in self._config.headers:
            headers[name] = value.reveal() if isinstance(value, Secret) else value
        return list(headers.items())

    async def aclose(self) -> None:
        """The transport belongs to the gateway: other LLMs may share it."""

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        sent = self._config.model if model is None else self.models.sent(model)
        if sent is None:
            return () if model is not None else (None,)  # a request that names none: the provider chooses
        return (await self._price(sent),)

    async def _price(self, sent: str) -> ModelPrice | None:
        """The price of a model that is sent, looked up once: our own configuration's first."""
        if sent in self._prices:
            return self._prices[sent]
        async with self._finding:  # all who ask at first ask for the same models
            if sent not in self._prices:
                found = self._own_price(sent) or await self._services.prices.find(self._base, sent)
                if len(self._prices) >= _REMEMBERED:
                    self._prices.clear()
                self._prices[sent] = found
            return self._prices[sent]

    def _own_price(self, sent: str) -> ModelPrice | None:
        own = (ModelPrice(it, price) for it, price in self._config.prices if it == sent or fnmatchcase(sent, it))
        return next(own, None)

    async def send(self, exchange: Exchange) -> Response:
        request = exchange.request
        if request.operation is _OPAQUE or request.continues:
            return await self._send_otherwise(exchange)
        head, own = request.head, request.api
        key = None if own is None or request.query else (own.name, head.model, head.stream, head.wants_usage)
        plan = self._plans.get(key)
        body: bytes | None
        if plan is None:
            plan, body = await self._planned(exchange, key)
            if plan is None:
                return await self._count_here(exchange, self._sent(head.model))
        elif not plan[5] or (body := request.body).rfind(SEAL_MARK) >= 0:
            body = self._body(exchange, plan[0], plan[1])
        api, sent, url, _, _, _ = plan
        attempt, trace = exchange.attempt(self._config.name, sent), exchange.trace
        passed, span = self._passed, ""
        if trace is not None and not self._names_trace:
            passed, span = self._passed_traced, _span_lines(trace, attempt)
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
                raise await self._error(answer, attempt)
        except BaseException as error:
            self._unanswered(exchange, plan, attempt, upstream, error)
            raise
        finally:
            attempt.sent_s = upstream.sent_s
            if upstream.repeated:
                _count_twice(exchange, attempt)
        streams = api.operation is _CHAT and api.streams is not False
        streams = streams and first.get("content-type", "").lower().startswith(api.stream_type)
        if not streams and "content-encoding" not in first and (whole := answer.body.whole()) is not None:
            return self._reply(exchange, plan, answer, attempt, whole)
        return await self._answer(exchange, plan, answer, attempt, streams)

    # -- the call ------------------------------------------------------------------------------------------------

    async def _planned(self, exchange: Exchange, key: _Asked | None) -> tuple[_Plan | None, bytes | None]:
        """How the request is sent, and its body there; no plan: what it asks for is made here."""
        request, own = exchange.request, exchange.request.api
        api, sent = self._api(request), self._sent(request.head.model)
        if api is None:
            return None, None
        body = self._body(exchange, api, sent) if api.has_body else None
        url = self._url(api, request, sent)
        # Before it is sent: whoever leaves after that is billed.
        billed = sent is not None and api.operation in BILLED_OPERATIONS
        price = await self._price(sent) if sent is not None and billed else None
        same_form = own is not None and own.form == api.form
        as_asked, as_is = same_form and not request.head.stream, same_form and not self._changes(request, api, sent)
        plan = (api, sent, url, None if price is None else price.price, as_asked, as_is)
        self._remember(key, request, plan)
        return plan, body

    def _changes(self, request: Request, api: Api, sent: str | None) -> bool:
        """Whether something is changed in *request*, whatever else it holds, though it goes out in its own form."""
        head = request.head
        streams = api.operation is _CHAT and head.stream
        asks = self._config.ask_usage and not head.wants_usage
        return sent != head.model or (streams and (asks or not self._config.supports_streaming))

    def _api(self, request: Request) -> Api | None:
        """
        The wire form to send in: the client's own when the dialect is the same, else this dialect's for the task.

        None for a count of tokens that the provider does not offer: it is made here.
        """
        own, operation = request.api, request.operation
        same = None if own is None else self._apis.get(own.name)
        if same is not None and same.streams is None:
            return same
        streams = operation is _CHAT and request.head.stream and self._config.supports_streaming
        if same is not None and same.streams is streams:
            return same
        single = own is not None and "{model}" in own.path if operation is _MODELS else None
        fitting = [
            api
            for api in self._dialect.apis
            if api.operation is operation
            and api.streams in (None, streams)
            and (single is None or ("{model}" in api.path) == single)
        ]
        if same is not None:  # the other way to be answered, but for the same kind of model (`tunedModels/…`)
            folder = same.path.partition("{model}")[0]
            fitting.sort(key=lambda api: not api.path.startswith(folder))
        if fitting:
            return fitting[0]
        if operation is Operation.COUNT_TOKENS:
            return None
        raise Unsupported(f"The LLM '{self._config.name}' does not offer {operation}", code="unsupported_operation")

    def _remember(self, key: _Asked | None, request: Request, plan: _Plan) -> None:
        """
        Remember how requests of that kind are sent, if that is the same whatever else they hold.

        Bounded: the names of models are the callers' choice.
        """
        own, api = request.api, plan[0]
        if key is None or own is None or api.operation not in CONVERSATIONS:
            return
        if self._model_base is not None or "{model}" in f"{own.path}{api.path}{self._base}":
            return
        if len(self._plans) >= _REMEMBERED:
            self._plans.clear()
        self._plans[key] = plan

    def _sent(self, asked: str | None) -> str | None:
        if asked is None:
            return self._config.model
        sent = self.models.sent(asked)
        if sent is None:
            raise RouteNotFound(f"No LLM here serves the model {asked[:128]!r}", code="model_not_found", param="model")
        return sent

    def _body(self, exchange: Exchange, api: Api, sent: str | None) -> bytes:
        request, config = exchange.request, self._config
        head = request.head
        streams = api.operation is _CHAT and head.stream
        stream_off = streams and not config.supports_streaming
        ask_usage = streams and not stream_off and config.ask_usage
        own = request.api
        if own is not None and own.form == api.form:
            return request.render(
                self._dialect,
                api,
                model=None if sent == head.model else sent,
                stream=False if stream_off and api.streams is None else None,
                ask_usage=ask_usage and not head.wants_usage,
            )
        translation = self._translation(exchange, sent)
        body = request.render(
            self._dialect,
            api,
            model=sent,
            stream=False if stream_off else None,
            ask_usage=ask_usage,
            translation=translation,
        )
        if translation.changes and exchange.client is not None:
            changed = translation.summary()
            exchange.response_headers.append((CHANGED_HEADER, changed))
            exchange.log_fields["changed"] = changed
        return body

    def _translation(self, exchange: Exchange, sent: str | None) -> Translation:
        asking: Exchange | None = exchange
        while asking is not None and asking.client is None:
            asking = asking.parent  # a processor's own call is made for the client it works for
        client = None if asking is None else asking.client
        bounds = self._config.max_output_tokens
        return Translation(
            llm=self._config.name,
            drops=client is not None and client.drops_unsupported,
            max_output_tokens=next((it for name, it in bounds if sent is not None and fnmatchcase(sent, name)), None),
            names=_OWN_NAMES if client is None else client.dialect.field_names,
        )

    async def _count_here(self, exchange: Exchange, sent: str | None) -> Response:
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

    def _url(self, api: Api, request: Request, sent: str | None) -> str:
        path, base = api.path, self._base
        if self._model_base is not None and api.has_body:
            base = self._model_base
        if "{model}" in path or "{model}" in base:
            slash = "" if "%2f" in request.path.lower() else "/"  # as the client wrote it: some servers tell them apart
            name = quote(sent or "", safe=":@" + slash)
            check_path("/" + name)  # dot segments in it would lead to another path of the provider's
            path, base = path.replace("{model}", name), base.replace("{model}", name)
        asked = request.api
        is_own = asked is not None and asked.form == api.form
        if is_own and asked is not None and request.query:
            query = passed_query(request.query, asked, api, self._query)
        else:
            parts = (api.query, "" if is_own else api.translated_query, self._query)
            query = "&".join(part for part in parts if part)
        return f"{base}{path}?{query}" if query else base + path

    def _headers(self, request: Request, passed: frozenset[str]) -> list[tuple[str, str]]:
        """What stands before the fixed ones: of the client's, those of the names *passed*."""
        theirs = request.headers
        headers = theirs.pick(passed)
        if self._defaults:
            headers += [pair for pair in self._defaults if pair[0] not in theirs]
        return headers

    def _note(self, attempt: Attempt, exchange: Exchange, answer: UpstreamResponse) -> None:
        attempt.headers_s, attempt.status = exchange.clock(), answer.status
        first = answer.headers.first
        attempt.upstream_id = first.get("x-request-id") or first.get("request-id")

    # -- the answer ----------------------------------------------------------------------------------------------

    async def _read(
        self, exchange: Exchange, plan: _Plan, answer: UpstreamResponse, attempt: Attempt, streams: bool
    ) -> Response:
        """A Stream for an event stream, else a Reply, read whole and looked at."""
        pieces: list[bytes] = []
        try:
            self._refuse_encoding(answer)
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
        plan: _Plan,
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
            headers=self._crossing(answer, attempt),
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

    def _stream(self, exchange: Exchange, plan: _Plan, answer: UpstreamResponse, attempt: Attempt) -> Stream:
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
            headers=self._crossing(answer, attempt),
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
        plan: _Plan,
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
        self, exchange: Exchange, plan: _Plan, answer: UpstreamResponse, attempt: Attempt, streams: bool
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
        self, exchange: Exchange, plan: _Plan, attempt: Attempt, upstream: UpstreamRequest, error: BaseException
    ) -> None:
        """There is not even the head of an answer."""
        if isinstance(error, ProxyError):
            attempt.failed(error, exchange.clock())
        if upstream.sent_s is not None and isinstance(error, UpstreamTimeout | asyncio.CancelledError):
            self._bill_unanswered(exchange, plan, attempt, error)

    def _bill_unanswered(
        self, exchange: Exchange, plan: _Plan, attempt: Attempt, error: BaseException, *, body: bytes = b""
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

    def _crossing(self, answer: UpstreamResponse, attempt: Attempt) -> list[tuple[str, str]]:
        theirs = answer.headers
        first = theirs.first
        if theirs.has_repeated:
            headers = list(compress(theirs, self._crosses(tuple([name for name, _ in theirs]))))
        else:
            headers = list(compress(first.items(), self._crosses(tuple(first))))  # no step of Python's for each
        text = attempt.upstream_id
        if text:
            for secret in self._secrets:
                if secret in text:
                    text = self.redact(text.encode("latin-1", "replace")).decode("latin-1")
                    break
            headers.append(("x-upstream-request-id", text))
        return headers

    def _refuse_encoding(self, answer: UpstreamResponse) -> None:
        encoding = answer.headers.get("content-encoding")
        if encoding is not None and encoding.strip().lower() not in ("", "identity"):
            raise UpstreamGarbage("The upstream answered in a content encoding it was not asked for")

    async def _error(self, answer: UpstreamResponse, attempt: Attempt) -> UpstreamError:
        """The provider's error answer as ours, our own secrets cut out of what it quotes."""
        try:
            body, is_whole = await read_head(answer, min(_MAX_ERROR_BYTES, self._config.max_response_bytes))
        finally:
            answer.body.close()
        if 300 <= answer.status < 400:
            return UpstreamGarbage(f"The upstream redirects (status {answer.status}); redirects are not followed")
        if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            body, is_whole = b"", False  # no secret can be found in it
        error = self._dialect.read_error(answer.status, answer.headers, self.redact(body))
        if is_whole and not isinstance(error, UpstreamAuthError):
            content_type = answer.headers.get("content-type", "").encode("latin-1", "replace")
            error.received = ReceivedBody(body, self.redact(content_type).decode("latin-1"))
        redact_error(error, self.redact)  # also what was escaped in the body
        error.headers = tuple(self._crossing(answer, attempt))
        return error

    def redact(self, text: bytes) -> bytes:
        """*text* without the secrets of this LLM's configuration."""
        for secret in self._own_secrets():
            text = secret.redact(text)
        return text

    def _own_secrets(self) -> Iterator[Secret]:
        if self._config.token is not None:
            yield self._config.token
        yield from (key.token for key in self._config.keys)
        yield from (value for _, value in self._config.headers if isinstance(value, Secret))

    # -- what few ask --------------------------------------------------------------------------------------------

    async def _send_otherwise(self, exchange: Exchange) -> Response:
        """Where the request is none of those that `send` knows."""
        request = exchange.request
        if request.operation is _OPAQUE:
            return await self._send_opaque(exchange)
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

    # -- opaque --------------------------------------------------------------------------------------------------

    async def _send_opaque(self, exchange: Exchange) -> Response:
        """Whatever it is, both ways in a stream; only the head is ours, and what an error quotes of our keys."""
        request = exchange.request
        query = without_credentials(request.query)
        if self._query:
            query = f"{query}&{self._query}" if query else f"?{self._query}"
        url = self._base + request.relative_path + query
        attempt = exchange.attempt(self._config.name, None)
        passed, span, trace = self._passed_opaque, "", exchange.trace
        if trace is not None and not self._names_trace:
            passed, span = self._passed_opaque_traced, _span_lines(trace, attempt)
        headers = request.headers.pick(passed)
        upstream = UpstreamRequest(request.method, url, headers, request.content, self._fixed, span)
        exchange.attempts.append(attempt)
        if exchange.deadline_s is not None:
            upstream.left_s = exchange.deadline_s - attempt.started_s
        # What others do may be done, though nobody has said so.
        upstream.may_repeat = exchange.may_repeat if request.method in _SAFE_METHODS else never
        try:
            answer = await self._transport.open(upstream, self._clocks)
            self._note(attempt, exchange, answer)
            if answer.status >= 400:
                raise await self._opaque_error(answer, attempt, request)
        except ProxyError as error:
            attempt.failed(error, exchange.clock())
            raise
        finally:
            attempt.sent_s = upstream.sent_s
            if upstream.repeated:
                _count_twice(exchange, attempt)
        crossing = self._crossing(answer, attempt) + answer.headers.pick(OPAQUE_RESPONSE_HEADERS)
        return Stream(
            exchange,
            answer.body,
            dialect=self._dialect,
            api=None,
            status=answer.status,
            headers=list(dict.fromkeys(crossing)),
            content_type=answer.headers.get("content-type") or "application/octet-stream",
            llm=self._config.name,
            attempt=attempt,
        )

    async def _opaque_error(self, answer: UpstreamResponse, attempt: Attempt, request: Request) -> UpstreamError:
        """As `_error`; its body goes to the client as it came, whatever that one speaks."""
        error = await self._error(answer, attempt)
        if error.received is not None:  # else the body is ours, and these are not about it
            assert request.dialect is not None
            error.dialect = request.dialect.name
            more = answer.headers.pick(OPAQUE_RESPONSE_HEADERS)
            error.headers = tuple(dict.fromkeys([*error.headers, *more]))
        return error


def _count_twice(exchange: Exchange, attempt: Attempt) -> None:
    """It was sent again over a new connection: a call as any other, also where it failed."""
    attempt.repeated = True
    if exchange.tries is not None:
        exchange.tries.left -= 1


def _span_lines(trace: TraceContext, attempt: Attempt) -> str:
    """Our place in the trace, for the upstream: the attempt's span where that is recorded, else the call's."""
    line = f"traceparent: {trace.traceparent(attempt.span_id or None)}\r\n"
    return f"{line}tracestate: {trace.state}\r\n" if trace.state else line
