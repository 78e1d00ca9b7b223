"""The processor: look up, else call once for all who ask, and keep what is worth it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from llmproxy_cache.config import CacheConfig
from llmproxy_cache.directives import Directives
from llmproxy_cache.entry import Entry, is_worth_keeping
from llmproxy_cache.flight import Flight
from llmproxy_cache.key import NotCacheable, key_of
from llmproxy_core import (
    CHANGED_HEADER,
    End,
    Exchange,
    Handler,
    KeptBody,
    KeyValue,
    Operation,
    Outcome,
    RequestRejected,
    Response,
    Services,
    StoreUnavailable,
    acts_elsewhere,
)

_log = logging.getLogger("llmproxy.cache")
_DEFAULT_TEMPERATURE = 1.0  # of OpenAI, Anthropic and Gemini, where a request says none
_MAY_ACT = (b'"tools"', b'"conversation"', b'"background"', b"\\u006", b"\\u007")
"""Words in a request, one of which is there where it is to act; the last two begin letters that are escaped."""
STATUS, KEY, AGE = "x-llmproxy-cache", "x-llmproxy-cache-key", "age"
_COUNTED = "Calls by what the cache did: hit, miss, shared (the call of another), bypass."
T = TypeVar("T")


class Cache:
    """
    Answers from what it keeps; fails open: without its store every call is a miss.

    Hits cost nothing and add no usage. Everything that stands around it in the chain works on a hit as on any answer.
    """

    def __init__(self, config: CacheConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self._kept: KeyValue = services.store(config.store).key_value("cache", max_bytes=config.max_bytes)
        # A call that a reload finds under way is joined, and emptied, by who comes after it.
        self._flights: dict[str, Flight] = services.kept(config, dict)
        self._counts = {
            result: services.meter.counter("llmproxy_cache_hits_total", _COUNTED, result=result)
            for result in ("hit", "miss", "shared", "bypass")
        }
        self._failing: set[str] = set()
        """What the store was last asked for in vain, and is told of."""

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        asked = Directives.of(exchange.request.headers)
        if (key := self._key(exchange, asked)) is None:
            self._mark(exchange, "bypass")
            return await call_next(exchange)
        exchange.response_headers.append((KEY, key))
        if not asked.no_cache and (hit := await self._hit(key, exchange, asked)) is not None:
            return hit
        flight = self._flights.get(key)
        if flight is None or asked.no_cache or not flight.can_be_joined:
            self._mark(exchange, "miss")
            flight = self._start(key, exchange, call_next)
        else:
            self._mark(exchange, "shared")
        response = await flight.join(exchange)
        _take_over(exchange, flight.exchange)
        return response

    async def purge(self, *, model: str | None = None, key: str | None = None) -> int:
        """
        Forget what was asked of, or answered by, *model*; or *key*; or all. How many answers there were.

        What is under way now is not kept either. StoreUnavailable when nobody knows whether they are forgotten.
        """
        for name, flight in list(self._flights.items()):
            if key in (None, name) and (model is None or model in flight.models):
                del self._flights[name]
            elif model is not None:
                flight.purged.add(model)  # which may turn out to be the one that answers
        try:
            return await self._within(self._emptied(model, key))
        except TimeoutError as error:
            raise StoreUnavailable(f"The store {self._config.store!r} does not answer") from error

    def _emptied(self, model: str | None, key: str | None) -> Awaitable[int]:
        if key is not None:
            return self._kept.delete(key)
        if model is not None:
            return self._kept.delete_tag(_tag(model))
        return self._kept.clear()

    def _mark(self, exchange: Exchange, status: str) -> None:
        exchange.response_headers.append((STATUS, status))
        exchange.log_fields["cache"] = status
        self._counts[status].add()

    # -- looking up ----------------------------------------------------------------------------------------------

    def _key(self, exchange: Exchange, asked: Directives) -> str | None:
        """The key of the request; None when the cache is to stay out of it."""
        config = self._config
        if not config.enabled or asked.no_store or self._is_too_random(exchange) or _acts(exchange):
            return None
        try:
            return key_of(exchange, self._services.route(exchange.route), config.share)
        except (NotCacheable, RequestRejected):  # the latter: what was made of it cannot be said in its own form
            return None

    def _is_too_random(self, exchange: Exchange) -> bool:
        bound = self._config.max_temperature
        if bound is None or exchange.operation is not Operation.CHAT:
            return False
        try:
            said = exchange.request.chat.temperature
        except RequestRejected:  # what we cannot read, the provider may: it is no business of a cache's
            return True
        return (_DEFAULT_TEMPERATURE if said is None else said) > bound

    async def _hit(self, key: str, exchange: Exchange, asked: Directives) -> Response | None:
        data = await self._ask("read", self._kept.get(key))
        entry = None if data is None else Entry.read(data)
        if entry is None:
            return None
        age_s = max(self._services.now() - entry.stored_at, 0.0)
        if age_s >= self._config.ttl_s or asked.refuses(age_s):
            return None
        response = entry.replay(exchange, self._services.dialects, self._services.tasks)
        if response is not None:
            exchange.response_headers += [(AGE, str(int(age_s))), *entry.told]
            if (changed := dict(entry.told).get(CHANGED_HEADER)) is not None:
                exchange.log_fields["changed"] = changed
            self._mark(exchange, "hit")
        return response

    # -- calling -------------------------------------------------------------------------------------------------

    def _start(self, key: str, exchange: Exchange, call_next: Handler) -> Flight:
        detached = exchange.detach(exchange.request)
        flight = Flight(detached, call_next, max_bytes=self._config.max_entry_bytes, tasks=self._services.tasks)
        self._flights[key] = flight
        detached.on_finish(lambda outcome: self._over(key, flight, outcome))
        return flight

    def _over(self, key: str, flight: Flight, outcome: Outcome) -> Awaitable[None] | None:
        """The flight has ended; one with an answer to be kept can be joined until that is done."""
        response, kept = flight.response, flight.kept
        if outcome.end is not End.COMPLETED or response is None or response.status != 200 or kept is None:
            self._forget(key, flight)
            return None
        return self._keep(key, flight, response, kept)

    async def _keep(self, key: str, flight: Flight, response: Response, kept: KeptBody) -> None:
        try:
            await asyncio.sleep(0)  # who waits for the answer has it first
            if not self._is_current(key, flight):
                return
            if flight.exchange.operation is Operation.CHAT and not await is_worth_keeping(response.dialect, kept):
                return
            entry = Entry.of(response, kept, flight.exchange, now=self._services.now())
            tags = {_tag(model) for model in flight.models}
            await self._ask("write", self._kept.set(key, bytes(entry), ttl_s=self._config.ttl_s, tags=tags))
            if not self._is_current(key, flight):  # emptied while it was written
                await self._ask("delete", self._kept.delete(key))
        finally:
            self._forget(key, flight)

    def _is_current(self, key: str, flight: Flight) -> bool:
        """Whether nobody has emptied the cache since, or asked anew."""
        return self._flights.get(key) is flight and flight.purged.isdisjoint(flight.models)

    def _forget(self, key: str, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _ask(self, verb: str, asking: Awaitable[T]) -> T | None:
        """What the store says; None when it fails, which is told once until *verb* works again."""
        try:
            answer = await self._within(asking)
        except Exception as error:  # noqa: BLE001 - whatever a store does, a call without a cache is better than none
            if verb not in self._failing:
                _log.warning("the cache cannot %s its store %s: %s", verb, self._config.store, type(error).__name__)
            self._failing.add(verb)
            return None
        self._failing.discard(verb)
        return answer

    async def _within(self, asking: Awaitable[T]) -> T:
        async with asyncio.timeout(self._config.store_timeout_s):
            return await asking


def _acts(exchange: Exchange) -> bool:
    """Whether the provider is to do more than to answer, which no kept answer does. Read only where a word says so."""
    request = exchange.request
    if exchange.operation is not Operation.CHAT:
        return False
    try:
        body = request.body
    except RequestRejected:  # what was made of it cannot be said in its own form
        return True
    return any(word in body for word in _MAY_ACT) and acts_elsewhere(request)


def _tag(model: str) -> str:
    return f"model:{model}"


def _take_over(exchange: Exchange, flight: Exchange) -> None:
    """What the processors below said for the client and the log; they ran on the flight's exchange."""
    ours = {STATUS, KEY, AGE}
    exchange.response_headers += [pair for pair in flight.response_headers if pair[0] not in ours]
    for name, value in flight.log_fields.items():
        exchange.log_fields.setdefault(name, value)
