"""What is written down of the way that an exchange took: why there was another attempt, and who was passed over."""

from __future__ import annotations

from llmproxy_core.attempt import Attempt
from llmproxy_core.errors import ProxyError, forget_tracebacks, have_wait
from llmproxy_core.exchange import Exchange
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.translation import CHANGED_HEADER

ATTEMPTS_HEADER = "x-llmproxy-attempts"
_LONGEST_CODE = 64  # characters of what a provider calls its error


def explain(exchange: Exchange, why: str) -> None:
    """The last attempt of *exchange*, or who was passed over since, is followed by another, for the reason *why*."""
    made = (*exchange.attempts[-1:], *exchange.passed_over[-1:])
    last = max(made, key=lambda attempt: attempt.started_s, default=None)
    if last is not None and last.next is None:
        last.next = why


def try_another(exchange: Exchange, why: str) -> None:
    """As `explain`, and the answer of that attempt will never be seen: nor is it told what was changed for it."""
    explain(exchange, why)
    if exchange.log_fields.pop("changed", None) is not None:
        headers = exchange.response_headers
        headers[:] = [pair for pair in headers if pair[0] != CHANGED_HEADER]


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


def sooner(error: ProxyError, before: ProxyError | None) -> ProxyError:
    """The same of two that stand in for each other: it tells to come again when the first of them may be asked."""
    told = tells_more(error, before)
    if before is None or told.retry_after_s is None:
        return told
    other = before if told is error else error
    failure, other_s = failure_of(other), other.retry_after_s
    if other_s is None:
        if failure.may_pass and failure.was_asked:  # it may answer at any time
            have_wait(told, None)
    elif failure.may_pass and other_s < told.retry_after_s:
        have_wait(told, other_s)
    return told


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
    how = attempt.status if error is None or (attempt.status or 200) != 200 else error.code[:_LONGEST_CODE]
    took = "" if ended_s is None else f"{(ended_s - attempt.started_s) * 1000:.0f}ms"
    why = "" if attempt.next is None else f"({attempt.next})"
    return " ".join(str(part) for part in (name, how, took if asked else "-", why) if part)
