"""How a caller is told that a call would cost too much: which limit, how much is used, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime

from llmproxy_core import BudgetExceeded, Caller, Money, OverLimit, StoreUnavailable, Window
from llmproxy_cost_limit.accounts import Payer

_WORDS = {Window.TOTAL: "total", Window.MONTH: "monthly", Window.DAY: "daily", Window.HOUR: "hourly"}
_CHEAPER = "A lower cap on the output, fewer choices or less input make it cheaper."


def request_too_dear(limit: Money, bound: Money) -> BudgetExceeded:
    """One request may not cost that much, ever."""
    return BudgetExceeded(
        f"This request may cost up to {bound}, and one request may cost at most {limit} here. {_CHEAPER}"
    )


def budget_exceeded(over: OverLimit, bound: Money, payer: Payer, caller: Caller, *, now: float) -> BudgetExceeded:
    """429 until the window is over; 402 where it never is. *now*: seconds since the epoch."""
    limit, balance = over.limit, over.balance
    message = f"The {_WORDS[limit.window]} budget of {payer.kind} {payer.name!r} is {limit.amount}"
    if payer.tells(caller):
        message += f": {balance.spent} is spent and {balance.reserved} reserved for calls under way"
    message += f"; this request may cost up to {bound}."
    if bound > limit.amount:
        message += f" That is more than the whole budget. {_CHEAPER}"
    if balance.resets_at is None:
        return BudgetExceeded(f"{message} The budget does not reset.")
    wait_s = max(balance.resets_at - now, 0.0)
    return BudgetExceeded(
        f"{message} The budget resets at {_utc(balance.resets_at)}.", status=429, retry_after_s=wait_s
    )


def price_unknown(model: str | None) -> BudgetExceeded:
    """Nobody knows what the call costs, so no limit could hold. *model*: as it is asked for."""
    named = "a request that names no model" if model is None else f"the model {model[:128]!r}"
    return BudgetExceeded(
        f"Costs are limited here, and no price is known for {named}. Whoever runs this proxy can set one in 'prices' "
        "of the LLM.",
        code="price_unknown",
        param="model",
    )


def cannot_check() -> StoreUnavailable:
    return StoreUnavailable(
        "Costs are limited here, and what was spent so far cannot be looked up now. Try again later."
    )


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
