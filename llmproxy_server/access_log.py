"""One line for each exchange, and for each request that was refused before it became one. Never headers or bodies."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Attempt, Exchange
from llmproxy_core.outcome import End, Outcome
from llmproxy_server.logs import BatchHandler
from llmproxy_server.record import CLIENT_GONE, Ended, Recorded

LOGGER = "llmproxy.access"
_ENVELOPE = frozenset({"time", "level", "logger", "message", "exception", "truncated"})
"""What every line of the log has."""
_log = logging.getLogger(LOGGER)


class AccessLog:
    """Writes to the logger `llmproxy.access`, a mapping as the record's `fields`."""

    def __init__(self, clock: Callable[[], float], batch: BatchHandler | None = None) -> None:
        """*batch* is the process's own handler: unless the logger has others, lines go straight to it."""
        self._clock = clock
        self._batch = batch

    def refused(self, call: Recorded, error: ProxyError) -> None:
        """Log a request that ended before it was an exchange."""
        self._write(logging.INFO, {**self._asked(call, error.status), "end": End.of(error), "error": error.code})

    def left(self, call: Recorded) -> None:
        """Log a request whose client left before it was an exchange."""
        self._write(logging.INFO, {**self._asked(call, CLIENT_GONE), "end": End.ABANDONED})

    def own(self, call: Recorded) -> None:
        """Log a call of one of our own endpoints: in silence, since monitors call them all the time."""
        if _log.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, {**self._asked(call, call.status), "end": End.COMPLETED})

    def _asked(self, call: Recorded, status: int) -> dict[str, object]:
        return {
            "method": call.method,
            "path": call.path,
            "status": status,
            "duration_ms": _ms(self._clock() - call.began_s),
            "request_id": call.request_id,
            "client": call.address,
        }

    def ended(self, ended: Ended) -> None:
        """Log an exchange that is over."""
        if not _log.isEnabledFor(logging.INFO):
            return
        call, exchange, outcome = ended.call, ended.exchange, ended.outcome
        error = outcome.error
        fields = self._asked(call, ended.status)
        fields["route"] = exchange.route
        fields["operation"] = exchange.operation
        if (model := _model(exchange, outcome)) is not None:
            fields["model"] = model
        fields["end"] = outcome.end
        if error is not None:
            fields["error"] = error.code
        if outcome.first_byte_s is not None:
            fields["first_byte_ms"] = _ms(outcome.first_byte_s - call.began_s)
        if (usage := outcome.usage) is not None:
            fields["input_tokens"], fields["output_tokens"] = usage.input_tokens, usage.output_tokens
            fields["usage_source"] = usage.source
        if outcome.cost is not None:
            fields["cost"] = str(outcome.cost)
        if exchange.attempts:
            fields["attempts"] = [_attempt(attempt) for attempt in exchange.attempts]
            if (upstream_id := exchange.attempts[-1].upstream_id) is not None:
                fields["upstream_request_id"] = upstream_id
        if children := exchange.child_attempts:
            fields["child_attempts"] = [_attempt(attempt) for attempt in children]
        for name, value in exchange.log_fields.items():
            if name not in _ENVELOPE:
                fields.setdefault(name, value)
        self._write(logging.INFO, fields)

    def _write(self, level: int, fields: dict[str, object]) -> None:
        if not _log.isEnabledFor(level):
            return
        if self._batch is not None and not _log.handlers:
            self._batch.add(LOGGER, level, fields)
        else:
            # By hand: `log` would look for the line of code that called it, which is always the same.
            _log.handle(_log.makeRecord(LOGGER, level, "", 0, "exchange", (), None, extra={"fields": fields}))


def _model(exchange: Exchange, outcome: Outcome) -> str | None:
    """The model that answered, else the one that was sent for."""
    if outcome.model is not None:
        return outcome.model
    return exchange.attempts[-1].model if exchange.attempts else None


def _attempt(attempt: Attempt) -> list[object]:
    """The LLM, its status and its error's code."""
    return [attempt.llm, attempt.status, None if attempt.error is None else attempt.error.code]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
