"""What one call holds in the ledger, from its admission until all that it pays for is over."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from llmproxy_core import Exchange, Money, Outcome, OverLimit, RequestRejected, Response, UsageRecord
from llmproxy_cost_limit.accounts import Account
from llmproxy_cost_limit.books import Books, Closing

_log = logging.getLogger("llmproxy")


class Hold:
    """
    One admission. `close` is to be registered with `exchange.on_billed`, for that exchange, before anything is awaited.

    It does not know its exchange, which knows it: bodies of both would stay until the collector comes by.

    A call that comes again (a processor around us calls `call_next` twice) is admitted again, under a hold of its own
    that only reserves: the bill is the exchange's, and the *first* hold books it whole.
    """

    def __init__(
        self,
        books: Books,
        *,
        first: Hold | None,
        fallback: Account,
        now: Callable[[], float],
        overrun: Callable[[], None],
    ) -> None:
        """*fallback* is booked in when the call came to no account of its own; *overrun* is called for one."""
        self._books = books
        self._fallback = fallback
        self._now = now
        self._overrun = overrun
        self._accounts: list[Account] = []
        self._first = first
        self.reserved = Money(0)
        """By this hold and, of the first one, by those that came after it."""
        self.response: Response | None = None
        """The last answer, of the first hold; until that is over."""
        self.is_over = False
        """Whether the exchange is over, and so is this."""

    async def reserve(self, amount: Money, accounts: list[Account]) -> tuple[Account, OverLimit] | None:
        """
        Reserve *amount* in each of *accounts*; what stands against it, if anything does.

        StoreUnavailable when the store cannot say. Nothing is reserved, or may be, that `close` does not know of.
        """
        self._accounts = accounts
        if amount:
            await self._books.catch_up()
        for account in accounts if amount else ():
            self._check_time()
            account.is_open = True  # before the wait: what is cancelled may have been done
            over = await self._books.reserve(account.id, amount, account.limits)
            if over is not None:
                account.is_open = False
                return account, over
        self._check_time()
        (self._first or self).reserved += amount
        return None

    def _check_time(self) -> None:
        """Nobody would close what is reserved for an exchange that is over, nor bill what it spends."""
        if self.is_over:
            raise RequestRejected("The call was over before it was admitted", status=499, code="client_gone")

    def answered(self, response: Response) -> None:
        if not self.is_over:
            (self._first or self).response = response

    def close(self, exchange: Exchange, outcome: Outcome) -> Awaitable[None] | None:
        """Book what was spent, give back the rest. *outcome*: the whole bill of *exchange*."""
        self.is_over = True
        closings: list[Closing] = []
        booked: Account | None = None
        if self._first is None and outcome.cost:
            booked = self._payer() or self._fallback
            closings.append(Closing(booked.id, booked.limits, self._record(exchange, outcome, outcome.cost)))
            self._compare(exchange, outcome.cost)
        self.response = None
        closings += [Closing(it.id, it.limits) for it in self._accounts if it.is_open and it is not booked]
        return self._books.close(closings) if closings else None

    def _payer(self) -> Account | None:
        """The account of the model that answered; the first one when nobody can tell."""
        price = None if self.response is None else self.response.price
        same = [it for it in self._accounts if any(its is price for its in it.prices)]  # several may cost the same
        equal = [it for it in self._accounts if price in it.prices]
        return next(iter(same or equal or self._accounts), None)

    def _compare(self, exchange: Exchange, cost: Money) -> None:
        if not (self.reserved and cost > self.reserved):
            return
        self._overrun()
        _log.warning(
            "cost_limit: exchange %s cost %s, and %s was reserved (route %s)",
            exchange.id,
            cost,
            self.reserved,
            exchange.route,
        )

    def _record(self, exchange: Exchange, outcome: Outcome, cost: Money) -> UsageRecord:
        caller = exchange.caller
        return UsageRecord(
            at=self._now(),
            exchange=exchange.id,
            caller=f"{caller.tenant}/{caller.name}" if caller.tenant else caller.name,
            route=exchange.route,
            model=outcome.model,
            end=outcome.end,
            usage=outcome.usage,
            cost=cost,
        )
