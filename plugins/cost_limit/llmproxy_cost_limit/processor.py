"""The processor: it admits a call when the most that it may cost fits into every limit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from llmproxy_core import (
    Exchange,
    Handler,
    LLMClient,
    ModelPrice,
    Money,
    Note,
    Response,
    Services,
    StoreUnavailable,
)
from llmproxy_cost_limit.accounts import Account, Accounts
from llmproxy_cost_limit.books import Books
from llmproxy_cost_limit.config import CostLimitConfig
from llmproxy_cost_limit.demand import BILLED, Demand
from llmproxy_cost_limit.hold import Hold
from llmproxy_cost_limit.refusal import budget_exceeded, cannot_check, price_unknown, request_too_dear

_log = logging.getLogger("llmproxy")

SPACE = "cost_limit"
"""The space of the ledger, which all tables share."""


class CostLimit:
    """Reserves the most that a call may cost before it can spend anything, and books what it did cost."""

    def __init__(self, config: CostLimitConfig, services: Services, books: Books | None) -> None:
        """*books* is None where no window is limited."""
        self._config = config
        self._services = services
        self._books = books
        self._accounts = Accounts(config)
        self._first: Note[Hold] = Note("cost_limit of one table")
        self.overruns = 0
        """How many calls cost more than was reserved for them."""
        self._overruns = services.meter.counter(
            "llmproxy_budget_overruns_total", "Calls that cost more than was reserved for them."
        )
        if books is not None:
            services.meter.gauge(
                "llmproxy_budget_settlements_waiting",
                "Calls that are over, and that the store has not booked yet.",
                lambda: books.waiting,
                store=config.store,
            )

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        hold = None if self._books is None else self._hold(exchange, self._books)
        await self._admit(exchange, hold)
        response = await call_next(exchange)
        if hold is not None:
            hold.answered(response)
        return response

    async def _admit(self, exchange: Exchange, hold: Hold | None) -> None:
        """Return when the call may be made; BudgetExceeded or StoreUnavailable when not."""
        bound, entries = await self._bound(exchange)
        exchange.log_fields["cost_bound"] = str(bound)
        self._check_request(exchange, bound)
        if hold is not None:
            accounts = self._accounts.of(exchange.layer.name, exchange.caller, exchange.route, entries)
            await self._reserve(exchange, hold, bound, accounts)

    @property
    def waiting(self) -> int:
        """How many calls are over whose end the store has not taken yet."""
        return 0 if self._books is None else self._books.waiting

    def _hold(self, exchange: Exchange, books: Books) -> Hold:
        """Whoever will close what this call reserves, and book what it spends; known to the exchange from the start."""
        hold = Hold(
            books,
            first=exchange.notes.get(self._first),
            fallback=self._accounts.of(exchange.layer.name, exchange.caller, exchange.route, ())[0],
            now=self._services.now,
            overrun=self._count_overrun,
        )
        if self._first not in exchange.notes:
            exchange.notes[self._first] = hold
        exchange.on_billed(partial(hold.close, exchange))
        return hold

    # -- what it may cost ----------------------------------------------------------------------------------------

    async def _bound(self, exchange: Exchange) -> tuple[Money, list[ModelPrice]]:
        """The most that the call may cost, with all that its route adds, and the prices that it may be answered at."""
        request, config = exchange.request, self._config
        route = self._services.route(exchange.route)
        bound, entries = Money(0), list[ModelPrice]()
        if request.operation in BILLED:
            entries = await self._prices(route.llm, request.model)
            bound = _dearest(entries, Demand.of(request, config.assumed_output_tokens, config.assumed_image_tokens))
        grown = 0
        for call in route.extra_calls(request):
            adds = call.llm is None and call.model is None and call.output_tokens == 0
            llm = route.llm if call.llm is None else self._services.llm(call.llm)
            output = config.assumed_output_tokens if call.output_tokens is None else call.output_tokens
            prices = await self._prices(llm, request.model if call.model is None else call.model)
            # What one processor adds to the request, the calls of those after it may hold, too.
            bound += _dearest(prices, Demand(call.input_tokens + (0 if adds else grown), output))
            grown += call.input_tokens if adds else 0
        return bound, entries

    async def _prices(self, llm: LLMClient, model: str | None) -> list[ModelPrice]:
        """The prices of what may be sent, as far as they are known; a refusal where that is not far enough."""
        entries = await llm.prices(model)
        # An LLM may answer a request that names no model by one of its own choice.
        is_unknown = None in entries or (model is None and not entries)
        if is_unknown and self._config.unpriced == "refuse":
            raise price_unknown(model)
        return [entry for entry in entries if entry is not None]

    # -- what it is allowed --------------------------------------------------------------------------------------

    def _check_request(self, exchange: Exchange, bound: Money) -> None:
        limit = self._config.per_request_usd
        if limit is not None and bound > limit:
            exchange.log_fields["cost_limit"] = f"{exchange.layer.name}.per_request_usd"
            raise request_too_dear(limit, bound)

    async def _reserve(self, exchange: Exchange, hold: Hold, bound: Money, accounts: list[Account]) -> None:
        """Reserve *bound*, or raise what the caller is to be told."""
        try:
            refused = await hold.reserve(bound, accounts)
        except StoreUnavailable as error:
            if self._config.on_store_error == "refuse":
                raise cannot_check() from error
            _log.warning("cost_limit: exchange %s is not limited: %s", exchange.id, error.message)
            return
        if refused is not None:
            account, over = refused
            exchange.log_fields["cost_limit"] = f"{exchange.layer.name}.{self._config.key_of(over.limit.window)}"
            raise budget_exceeded(over, bound, account.payer, exchange.caller, now=self._services.now())

    def _count_overrun(self) -> None:
        self.overruns += 1
        self._overruns.add()


def _dearest(entries: Sequence[ModelPrice], demand: Demand) -> Money:
    """The most that *demand* costs at any of *entries*; nothing where there is none."""
    return max((it.price.bound(demand.input_tokens, demand.output_tokens) for it in entries), default=Money(0))


def build(config: CostLimitConfig, services: Services) -> CostLimit:
    ledger = services.store(config.store).ledger(SPACE) if config.windows else None
    # What waits for a store that is down is not lost by a reload.
    books = None if ledger is None else services.kept(("books", id(ledger)), lambda: Books(ledger))
    return CostLimit(config, services, books)
