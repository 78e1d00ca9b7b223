"""
One line for each exchange, and for each request that was refused before it became one.

Never headers, keys or query strings; what was asked and answered only where the operator wants it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from llmproxy_core.errors import ProxyError, raise_unless_bug
from llmproxy_core.outcome import End, KeptBody
from llmproxy_core.relay import Whole
from llmproxy_core.request import Request
from llmproxy_server.access_line import AccessLine, access_line, error_fields, milliseconds, more_of
from llmproxy_server.log_content import ContentText
from llmproxy_server.log_line import Content, Fields, told
from llmproxy_server.log_steps import Steps
from llmproxy_server.logs import BatchHandler
from llmproxy_server.record import CLIENT_GONE, Ended, Recorded

LOGGER = "llmproxy.access"
_log = logging.getLogger(LOGGER)
_FAILED, _ERROR, _INFO = End.FAILED, logging.ERROR, logging.INFO  # as globals a fifth as dear: each call asks for it


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
        end = End.of(error)
        level = _ERROR if end is _FAILED else _INFO
        if _log.isEnabledFor(level):
            self._write(level, {**self._asked(call, error.status), "end": end, **error_fields(error)})

    def left(self, call: Recorded) -> None:
        """Log a request whose client left before it was an exchange."""
        if _log.isEnabledFor(logging.INFO):
            self._write(logging.INFO, {**self._asked(call, CLIENT_GONE), "end": End.ABANDONED})

    def told(self, call: Recorded, whole: Whole) -> None:
        """Log the body of an error, where bodies are logged."""
        if self._steps is not None:
            self._steps.told(call.request_id, whole.status, whole.body)

    def own(self, call: Recorded) -> None:
        """Log a call of one of our own endpoints: in silence, since monitors call them all the time."""
        if _log.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, {**self._asked(call, call.status), "end": End.COMPLETED})

    def _asked(self, call: Recorded, status: int) -> dict[str, object]:
        return {
            "method": call.method,
            "path": call.path,
            "status": status,
            "duration_ms": milliseconds(self._clock() - call.began_s),
            "request_id": call.request_id,
            "client": call.address,
        }

    def ended(self, ended: Ended) -> AccessLine | None:
        """Log an exchange that is over; gives its line, where it has one."""
        if self._steps is not None:
            self._steps.ended(ended)
        outcome = ended.outcome
        level = _ERROR if outcome.end is _FAILED else _INFO
        if not _log.isEnabledFor(level):
            return None
        line = access_line(ended, outcome.ended_s)
        more = more_of(ended) if ended.exchange.log_fields else None
        if self._content is None:
            size = 512 + len(line.path)
            if self._batch is not None and not _log.handlers:
                self._batch.add(LOGGER, level, line, more=more, size=size)
            else:
                self._write(level, line, more, size=size)
        else:
            content = Said(self._content, ended.exchange.request, ended.body)
            self._write(level, line, more, content=content.texts, size=1024 + content.size)
        return line

    def _write(
        self,
        level: int,
        fields: Fields,
        more: Mapping[str, object] | None = None,
        *,
        content: Content | None = None,
        size: int = 512,
    ) -> None:
        if self._batch is not None and not _log.handlers:
            self._batch.add(LOGGER, level, fields, more=more, content=content, size=size)
            return
        # By hand: `log` would look for the line of code that called it, which is always the same.
        extra = {"fields": told(fields, more), "content": content, "content_bytes": size}
        _log.handle(_log.makeRecord(LOGGER, level, "", 0, "exchange", (), None, extra=extra))


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
        except BaseException as bug:  # noqa: BLE001 - a conversation that its own dialect cannot write; its line says why it ended
            raise_unless_bug(bug)
            self.size = 0
        self.size += 0 if body is None else len(body.data)

    def texts(self) -> Mapping[str, str]:
        """`query` and `answer`, as far as there is one."""
        texts = {"query": self._text.query(self._request)}
        if self._body is not None:
            texts["answer"] = self._text.answer(self._body)
        return {name: text for name, text in texts.items() if text}
