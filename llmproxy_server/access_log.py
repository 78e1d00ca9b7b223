"""
One line for each exchange, and for each request that was refused before it became one.

Never headers, keys or query strings; what was asked and answered only where the operator wants it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from operator import attrgetter

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.exchange import Attempt
from llmproxy_core.outcome import End, KeptBody
from llmproxy_core.request import Request
from llmproxy_core.trace_context import read_parent
from llmproxy_server.log_content import ContentText
from llmproxy_server.log_line import ENVELOPE, Content, Fields
from llmproxy_server.log_steps import Steps
from llmproxy_server.logs import BatchHandler
from llmproxy_server.record import CLIENT_GONE, Ended, Recorded

LOGGER = "llmproxy.access"
_STARTED = attrgetter("started_s")
_log = logging.getLogger(LOGGER)


class AccessLog:
    """Writes to the logger `llmproxy.access`, a mapping as the record's `fields`."""

    def __init__(
        self,
        clock: Callable[[], float],
        batch: BatchHandler | None = None,
        *,
        content: ContentText | None = None,
        steps: Steps | None = None,
    ) -> None:
        """
        *batch* is the process's own handler: unless the logger has others, lines go straight to it.

        With *content*, lines hold what was asked and answered; *steps* is told of what ended, for lines of its own.
        """
        self._clock = clock
        self._batch = batch
        self._content = content
        self._steps = steps

    def refused(self, call: Recorded, error: ProxyError) -> None:
        """Log a request that ended before it was an exchange."""
        if _log.isEnabledFor(logging.INFO):
            fields = self._asked(call, error.status)
            self._write(logging.INFO, {**fields, "end": End.of(error), **ErrorFacts(error).fields()})

    def left(self, call: Recorded) -> None:
        """Log a request whose client left before it was an exchange."""
        if _log.isEnabledFor(logging.INFO):
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
        if self._steps is not None:
            self._steps.ended(ended)
        if not _log.isEnabledFor(logging.INFO):
            return
        facts = Facts(ended, self._clock())
        if self._content is None:
            self._write(logging.INFO, facts.fields, size=512 + len(facts.path))
        else:
            content = Said(self._content, ended.exchange.request, ended.body)
            self._write(logging.INFO, facts.fields, content=content.texts, size=1024 + content.size)

    def _write(self, level: int, fields: Fields, *, content: Content | None = None, size: int = 512) -> None:
        if self._batch is not None and not _log.handlers:
            self._batch.add(LOGGER, level, fields, content=content, size=size)
            return
        # By hand: `log` would look for the line of code that called it, which is always the same.
        told = fields() if callable(fields) else fields
        extra = {"fields": told, "content": content, "content_bytes": size}
        _log.handle(_log.makeRecord(LOGGER, level, "", 0, "exchange", (), None, extra=extra))


class Facts:
    """
    What the line of an exchange tells, taken when that ended.

    Taking it is all that the call pays for. `fields` is called when the line is written, in another thread: nothing
    here changes until then, nor holds the bodies of the call.
    """

    __slots__ = (
        "_address",
        "_attempts",
        "_began_s",
        "_child_attempts",
        "_cost",
        "_end",
        "_ended_s",
        "_error",
        "_first_byte_s",
        "_log_fields",
        "_method",
        "_model",
        "_operation",
        "_request_id",
        "_route",
        "_status",
        "_trace",
        "_usage",
        "path",
    )

    def __init__(self, ended: Ended, now: float) -> None:
        call, exchange, outcome = ended.call, ended.exchange, ended.outcome
        incoming = call.incoming
        self._method = incoming.method
        self.path = incoming.path
        self._status = ended.status
        self._began_s = call.began_s
        self._ended_s = now
        self._request_id = call.request_id
        self._address = call.address
        self._route = exchange.route
        self._operation: Operation = exchange.operation
        self._model = outcome.model
        self._end = outcome.end
        self._error = None if outcome.error is None else ErrorFacts(outcome.error)
        self._first_byte_s = outcome.first_byte_s
        self._usage = outcome.usage
        self._cost = outcome.cost
        self._attempts = [AttemptFacts(attempt) for attempt in exchange.attempts]
        self._child_attempts = [AttemptFacts(attempt) for attempt in exchange.child_attempts]
        trace = exchange.trace
        self._trace = trace.trace_id if trace is not None else incoming.headers.get("traceparent")
        self._log_fields = dict(exchange.log_fields) if exchange.log_fields else None

    def fields(self) -> dict[str, object]:
        """The members of the line, in its order; what is not known is left out."""
        fields: dict[str, object] = {
            "method": self._method,
            "path": self.path,
            "status": self._status,
            "duration_ms": _ms(self._ended_s - self._began_s),
            "request_id": self._request_id,
            "client": self._address,
            "route": self._route,
            "operation": self._operation,
        }
        # The model that answered, else the one that was sent for.
        if model := self._model or (self._attempts[-1].model if self._attempts else None):
            fields["model"] = model
        fields["end"] = self._end
        if self._error is not None:
            fields.update(self._error.fields())
        if self._first_byte_s is not None:
            fields["first_byte_ms"] = _ms(self._first_byte_s - self._began_s)
        fields["overhead_ms"] = _ms(self._overhead_s())
        self._tell_used(fields)
        if self._attempts:
            fields["attempts"] = [attempt.fields() for attempt in self._attempts]
            if (upstream_id := self._attempts[-1].upstream_id) is not None:
                fields["upstream_request_id"] = upstream_id
        if self._child_attempts:
            fields["child_attempts"] = [attempt.fields() for attempt in self._child_attempts]
        if trace_id := self._trace_id():
            fields["trace_id"] = trace_id
        for name, value in (self._log_fields or {}).items():
            if name not in ENVELOPE:
                fields.setdefault(name, value)
        return fields

    def _tell_used(self, fields: dict[str, object]) -> None:
        if (usage := self._usage) is not None:
            fields["input_tokens"], fields["output_tokens"] = usage.input_tokens, usage.output_tokens
            if usage.cached_input_tokens:
                fields["cached_input_tokens"] = usage.cached_input_tokens
            if usage.reasoning_tokens:
                fields["reasoning_tokens"] = usage.reasoning_tokens
            fields["usage_source"] = usage.source
        if self._cost is not None:
            fields["cost"] = str(self._cost)

    def _overhead_s(self) -> float:
        """How long no upstream worked for the call."""
        waited_s, until_s = 0.0, self._began_s
        for it in sorted((*self._attempts, *self._child_attempts), key=_STARTED):
            end_s = self._ended_s if it.ended_s is None else min(it.ended_s, self._ended_s)
            waited_s += max(0.0, end_s - max(it.started_s, until_s))
            until_s = max(until_s, end_s)
        return max(0.0, self._ended_s - self._began_s - waited_s)

    def _trace_id(self) -> str | None:
        """Of our own trace, else the caller's."""
        if isinstance(self._trace, int):
            return f"{self._trace:032x}"
        parent = None if self._trace is None else read_parent(self._trace)
        return None if parent is None else f"{parent.trace_id:032x}"


class AttemptFacts:
    """One upstream call, as `Facts`."""

    __slots__ = ("ended_s", "error", "llm", "model", "started_s", "status", "upstream_id")

    def __init__(self, attempt: Attempt) -> None:
        self.llm = attempt.llm
        self.model = attempt.model
        self.status = attempt.status
        self.error = None if attempt.error is None else attempt.error.code
        self.started_s = attempt.started_s
        self.ended_s = attempt.ended_s
        self.upstream_id = attempt.upstream_id

    def fields(self) -> dict[str, object]:
        """*status* is null where no answer came, *ms* where it was not over when the exchange ended."""
        ms = None if self.ended_s is None else _ms(self.ended_s - self.started_s)
        return {"llm": self.llm, "status": self.status, "error": self.error, "ms": ms}


class ErrorFacts:
    """What is told of an error; the error itself may hold the whole call."""

    __slots__ = ("_cause", "_code", "_kind", "_message", "_upstream_status")

    def __init__(self, error: ProxyError) -> None:
        self._code = error.code
        self._kind = type(error).__name__
        self._message = error.message
        self._cause = None if error.__cause__ is None else type(error.__cause__).__name__
        self._upstream_status = error.upstream_status if isinstance(error, UpstreamError) else None

    def fields(self) -> dict[str, object]:
        fields: dict[str, object] = {
            "error": self._code,
            "error_type": self._kind,
            "error_message": self._message,
        }
        if self._cause is not None:
            fields["error_cause"] = self._cause
        if self._upstream_status is not None:
            fields["upstream_status"] = self._upstream_status
        return fields


class Said:
    """What an exchange was asked, and what it answered."""

    __slots__ = ("_body", "_request", "_text", "size")

    def __init__(self, text: ContentText, request: Request, body: KeptBody | None) -> None:
        self._text = text
        self._request = request
        self._body = body
        try:
            self.size = len(request.body)
            """About how many bytes it holds in memory."""
        except Exception:  # noqa: BLE001 - a conversation that its own dialect cannot write; its line says why it ended
            self.size = 0
        self.size += 0 if body is None else len(body.data)

    def texts(self) -> Mapping[str, str]:
        """`query` and `answer`, as far as there is one."""
        texts = {"query": self._text.query(self._request)}
        if self._body is not None:
            texts["answer"] = self._text.answer(self._body)
        return {name: text for name, text in texts.items() if text}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
