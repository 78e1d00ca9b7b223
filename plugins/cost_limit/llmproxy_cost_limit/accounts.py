"""Who pays for a call, and under which limits."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import attrs
import msgspec

from llmproxy_core import Caller, Limit, ModelPrice, Price
from llmproxy_cost_limit.config import CostLimitConfig

NO_PRICE = "(no price)"
"""Whose account it is where there is one for each model, and the call has none with a price."""


@attrs.frozen
class Payer:
    """
    Whose account it is: a caller, a route or a model.

    *is_shared*: others than the caller spend from it. A caller of a tenant is not told how much that is: it would
    learn of other tenants.
    """

    kind: str
    name: str
    tenant: str = ""
    is_shared: bool = True

    def tells(self, caller: Caller) -> bool:
        """Whether *caller* may know what was spent."""
        return not (self.is_shared and caller.tenant)


@attrs.define
class Account:
    """One account that a call may be booked in, and the id under which that is done."""

    payer: Payer
    limits: tuple[Limit, ...]
    prices: Sequence[Price] = ()
    """Of the model that it stands for, if it stands for one; LLMs may have it at several."""
    id: str = attrs.field(init=False, factory=lambda: uuid4().hex)  # ids of requests are the clients' choice
    is_open: bool = attrs.field(init=False, default=False)
    """Whether something is reserved, or may be."""


class Accounts:
    """The accounts of one table. Their names begin with the table's own: no two tables share any."""

    def __init__(self, config: CostLimitConfig) -> None:
        self._per = config.per
        self._windows = config.windows

    def of(self, table: str, caller: Caller, route: str, entries: Sequence[ModelPrice]) -> list[Account]:
        """
        The accounts that a call may be booked in, at least one.

        There is more than one only where each model has its own and which of *entries* answers is not known yet.
        """
        if self._per == "caller":
            payer = Payer("caller", caller.name, caller.tenant, is_shared=False)
        elif self._per == "route":
            payer = Payer("route", route)
        elif entries:
            by_name: dict[str, list[Price]] = {}
            for entry in entries:
                by_name.setdefault(entry.name, []).append(entry.price)
            return [self._account(table, Payer("model", name), prices) for name, prices in by_name.items()]
        else:
            payer = Payer("model", NO_PRICE)
        return [self._account(table, payer)]

    def _account(self, table: str, payer: Payer, prices: Sequence[Price] = ()) -> Account:
        key = msgspec.json.encode([table, payer.kind, payer.tenant, payer.name]).decode()
        return Account(payer, tuple(Limit(key, window, amount) for _, window, amount in self._windows), prices)
