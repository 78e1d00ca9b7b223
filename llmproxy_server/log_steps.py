"""
The steps of each call, at level `debug`: its route, its processors, its upstream calls; at `trace` the bodies too.

It is wired in when a gateway is built, and only where the level asks for it: no call pays for it otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from urllib.parse import urlsplit

from llmproxy_core.body import Body, Sink
from llmproxy_core.config import ServerConfig
from llmproxy_core.errors import ProxyError, RequestRejected
from llmproxy_core.exchange import Exchange
from llmproxy_core.llm import Timeouts, Transport, UpstreamRequest, UpstreamResponse
from llmproxy_core.outcome import Outcome
from llmproxy_core.processor import Handler
from llmproxy_core.request import Request
from llmproxy_core.response import Response
from llmproxy_core.services import Pool
from llmproxy_server.log_content import OPAQUE
from llmproxy_server.log_line import TRACE
from llmproxy_server.logs import level_of
from llmproxy_server.record import Ended

LOGGER = "llmproxy.steps"
_AN_ERROR = 400
_MOST_ERROR_BYTES = 64 << 10
_log = logging.getLogger(LOGGER)


def steps_of(server: ServerConfig) -> Steps | None:
    """What logs the steps of calls; None where nobody wants to know."""
    level = level_of(server)
    return Steps(bodies=level <= TRACE) if level <= logging.DEBUG else None


class Steps:
    """
    Logs the steps of a gateway's calls.

    `begin` is an observer of exchanges, `around` is for `Services.around`, `transports` for `Services.transport`, and
    `ended` is told by the access log.
    """

    def __init__(self, *, bodies: bool) -> None:
        """*bodies*: log what is asked, what is sent for it, and what is answered, as it stands."""
        self._bodies = bodies

    def begin(self, exchange: Exchange) -> None:
        """*exchange*, a client's, begins."""
        _call.set(exchange.id)
        request = exchange.request
        fields = {"route": exchange.route, "operation": exchange.operation}
        body = None if not self._bodies else OPAQUE.encode() if request.api is None else request.body
        _say(exchange.id, "route matched", fields, body)
        exchange.on_finish(partial(_attempts_ended, exchange))

    def around(self, step: str, handler: Handler) -> Handler:
        return observed(step, handler)

    def transports(self, transport: Callable[[Pool], Transport]) -> Callable[[Pool], Transport]:
        """*transport*, each that it gives watched."""
        return lambda pool: _WatchedTransport(transport(pool), bodies=self._bodies)

    def told(self, request_id: str, status: int, body: bytes) -> None:
        """A client is told of an error."""
        if self._bodies:
            _say(request_id, "answer", {"status": status}, body)

    def ended(self, ended: Ended) -> None:
        """A client's call is over, and its answer is known."""
        if self._bodies and ended.body is not None:
            _say(ended.exchange.id, "answer", {"status": ended.status}, ended.body.data)


# -- processors ------------------------------------------------------------------------------------------------------


class _Inside:
    """One processor's run for one exchange, seen from around it."""

    __slots__ = ("_asked", "_attempts", "_request", "_started_s", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._started_s = exchange.clock()
        self._request = exchange.request
        self._attempts = len(exchange.attempts)
        self._asked: Request | None = None

    def asks(self, request: Request) -> None:
        """It asks the rest of the chain for *request*."""
        self._asked = request

    def left(self, verdict: str) -> dict[str, object]:
        """What it did, told when it is left. *verdict*: how, unless it answered, or passed on what it was given."""
        exchange = self.exchange
        asked = self._asked
        if asked is None and len(exchange.attempts) > self._attempts:
            asked = exchange.attempts[self._attempts].request
        did = [] if asked is None else ["changed the request" if asked is not self._request else "passed on"]
        if verdict or asked is None:
            did.append(verdict or "answered")
        return {"did": ", ".join(did), "ms": _ms(exchange.clock() - self._started_s)}


_inside: ContextVar[_Inside | None] = ContextVar("llmproxy_log_inside", default=None)
_call: ContextVar[str] = ContextVar("llmproxy_log_call", default="")
"""The id of the call that is served, for those who see no exchange."""


def observed(step: str, handler: Handler) -> Handler:
    """
    *handler*, which the processor *step* makes, with a line when it is entered and when it is left.

    "" stands for the LLM: it has lines of its own, those of its upstream calls.
    """

    async def llm(exchange: Exchange) -> Response:
        _tell_outer(exchange)
        return await handler(exchange)

    async def processor(exchange: Exchange) -> Response:
        outer = _tell_outer(exchange)
        _say(exchange.id, "processor entered", {"processor": step})
        inside = _Inside(exchange)
        _inside.set(inside)
        verdict = ""
        try:
            return await handler(exchange)
        except ProxyError as error:
            verdict = f"{'refused' if isinstance(error, RequestRejected) else 'failed'} ({error.code})"
            raise
        except asyncio.CancelledError:
            verdict = "cancelled"
            raise
        except BaseException as error:
            verdict = f"failed ({type(error).__name__})"
            raise
        finally:
            _inside.set(outer)
            _say(exchange.id, "processor left", {"processor": step, **inside.left(verdict)})

    return processor if step else llm


def _tell_outer(exchange: Exchange) -> _Inside | None:
    outer = _inside.get()
    if outer is not None and outer.exchange is exchange:
        outer.asks(exchange.request)
    return outer


# -- upstream calls --------------------------------------------------------------------------------------------------


class _WatchedTransport:
    """A line when an upstream call begins, one when its head has come, or why none did."""

    def __init__(self, transport: Transport, *, bodies: bool) -> None:
        self._transport = transport
        self._bodies = bodies

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        call, started_s = _call.get(), time.monotonic()
        body = request.body if isinstance(request.body, bytes) or request.body is None else OPAQUE.encode()
        place = {"method": request.method, "upstream": _place(request.url)}
        _say(call, "attempt begun", place, body if self._bodies else None)
        told: dict[str, object] = {"error": "cancelled"}
        try:
            response = await self._transport.open(request, timeouts)
            told = {"status": response.status}
            if self._bodies and response.status >= _AN_ERROR:
                response.body = _WatchedBody(response.body, call, {**place, **told})
            return response
        except ProxyError as error:
            told = {"error": error.code, "error_message": error.message}
            raise
        finally:
            said = "attempt has headers" if "status" in told else "attempt failed"
            _say(call, said, {**place, **told, "ms": _ms(time.monotonic() - started_s)})

    async def aclose(self) -> None:
        await self._transport.aclose()


class _WatchedBody:
    """An upstream's error, which nobody may see but who reads the log at this level: a line once it is read."""

    def __init__(self, body: Body, call: str, fields: Mapping[str, object]) -> None:
        self._body = body
        self._call = call
        self._fields = fields
        self._read: list[bytes] = []
        self._size = 0

    @property
    def pushes(self) -> bool:
        return self._body.pushes

    def whole(self) -> bytes | None:
        return None

    async def read(self) -> bytes:
        data = await self._body.read()
        if self._size < _MOST_ERROR_BYTES:
            self._read.append(data)
            self._size += len(data)
        return data

    def attach(self, sink: Sink) -> None:
        self._body.attach(sink)

    def pause(self) -> None:
        self._body.pause()

    def resume(self) -> None:
        self._body.resume()

    def close(self) -> None:
        self._tell()
        self._body.close()

    def release(self) -> None:
        self._tell()
        self._body.release()

    def _tell(self) -> None:
        body, self._read = b"".join(self._read), []
        if body:
            _say(self._call, "attempt answered with an error", self._fields, body)


def _place(url: str) -> str:
    """*url* without what may be a credential: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _attempts_ended(exchange: Exchange, outcome: Outcome) -> None:
    for attempt in [*exchange.attempts, *exchange.child_attempts]:
        fields: dict[str, object] = {"llm": attempt.llm, "model": attempt.model, "status": attempt.status}
        if attempt.ended_s is not None:
            fields["ms"] = _ms(attempt.ended_s - attempt.started_s)
        if attempt.error is not None:
            fields["error"] = attempt.error.code
        if attempt.outcome is not None and (usage := attempt.outcome.usage) is not None:
            fields |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        _say(exchange.id, "attempt ended", fields)


# -- lines -----------------------------------------------------------------------------------------------------------


def _say(request_id: str, message: str, fields: Mapping[str, object], body: bytes | None = None) -> None:
    extra: dict[str, object] = {"fields": {"request_id": request_id, **fields}}
    if body:
        extra |= {"content": lambda: {"body": body.decode("utf-8", "replace")}, "content_bytes": len(body)}
    _log.log(logging.DEBUG if body is None else TRACE, message, extra=extra)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
