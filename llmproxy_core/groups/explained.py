"""What is written down of the way that an exchange took: why there was another attempt, and who was passed over."""

from __future__ import annotations

from llmproxy_core.errors import ProxyError, forget_tracebacks
from llmproxy_core.exchange import Attempt, Exchange
from llmproxy_core.resilience.failure import Failure, failure_of

ATTEMPTS_HEADER = "x-llmproxy-attempts"


def explain(exchange: Exchange, why: str) -> None:
    """The last attempt of *exchange* is followed by another, for the reason *why*."""
    attempts = exchange.attempts
    if attempts and attempts[-1].next is None:
        attempts[-1].next = why


def pass_over(exchange: Exchange, llm: str, key: str | None, error: ProxyError) -> None:
    """Note that *llm* would have been called, and was not."""
    attempt = exchange.attempt(llm, None)
    attempt.key = key
    attempt.failed(error, exchange.clock())
    exchange.pass_over(attempt)


def tells_more(error: ProxyError, before: ProxyError | None) -> ProxyError:
    """
    Which of two errors, each of another try, the caller should hear of if nothing better comes.

    That of an answer rather than of who was not asked; of these one that will pass rather than what cannot be said. It
    stays in the exchange's attempts whatever comes, and so holds no frames any more.
    """
    forget_tracebacks(error)
    return error if before is None or _weight(error) >= _weight(before) else before


def _weight(error: ProxyError) -> tuple[bool, bool]:
    failure = failure_of(error)
    return failure.was_asked, failure is Failure.UNAVAILABLE


def attempts_told(exchange: Exchange) -> str:
    """
    The way that *exchange* took, in the order of time: `a 503 120ms (upstream: the next member), b/KEY_2 200 80ms`.

    An LLM that was passed over has a hyphen for its time.
    """
    asked = {id(attempt) for attempt in exchange.attempts}
    made = sorted([*exchange.attempts, *exchange.passed_over], key=lambda attempt: attempt.started_s)
    return ", ".join(_told(attempt, asked=id(attempt) in asked) for attempt in made)


def _told(attempt: Attempt, *, asked: bool) -> str:
    name = attempt.llm if attempt.key is None else f"{attempt.llm}/{attempt.key}"
    error, ended_s = attempt.error, attempt.ended_s
    how = attempt.status if error is None or (attempt.status or 200) != 200 else error.code
    took = "" if ended_s is None else f"{(ended_s - attempt.started_s) * 1000:.0f}ms"
    why = "" if attempt.next is None else f"({attempt.next})"
    return " ".join(str(part) for part in (name, how, took if asked else "-", why) if part)
