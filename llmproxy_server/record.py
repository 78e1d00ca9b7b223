"""What is written down of each call of a client: a line of the log, the metrics, the spans, the recent calls."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from llmproxy_core.attempt import Attempt
from llmproxy_core.errors import ProxyError, raise_unless_bug
from llmproxy_core.exchange import Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.outcome import End, KeptBody, Outcome
from llmproxy_core.relay import Whole
from llmproxy_core.response import Response
from llmproxy_core.subscription import Keep
from llmproxy_server.backlog import Backlog
from llmproxy_server.door_request import Incoming
from llmproxy_server.health_llm import LLMState

if TYPE_CHECKING:
    from llmproxy_server.access_line import AccessLine

_log = logging.getLogger("llmproxy")
_ABANDONED, _COMPLETED = End.ABANDONED, End.COMPLETED  # as globals a fifth as dear: each call asks for them
CLIENT_GONE = 499
"""What is written down as the status of an answer that nobody waited for."""


class Recorded(Protocol):
    """What is wanted to be known of a call at the edge."""

    @property
    def request_id(self) -> str: ...

    @property
    def incoming(self) -> Incoming: ...

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def began_s(self) -> float: ...

    @property
    def status(self) -> int: ...


class Ended:
    """A call that is over. Made per call."""

    __slots__ = ("begun", "call", "counted", "exchange", "keep", "only", "outcome", "status")
    begun: object
    """What the metrics wrote down when it began."""
    counted: object
    """What they counted it as when it ended."""
    keep: Keep | None
    """The answer, where somebody wants its content."""
    only: Attempt | None
    """Its attempt, where that is all there was, nearly always: no other, and none in a processor's name."""

    def __init__(
        self,
        call: Recorded,
        exchange: Exchange,
        outcome: Outcome,
        status: int,
        keep: Keep | None,
        *,
        begun: object = None,
    ) -> None:
        self.call = call
        self.exchange = exchange
        self.outcome = outcome
        """Of the exchange; once it is billed, with the usage and cost of all that it pays for."""
        self.status = status
        """What was sent; 499 when the client had left, the error's own when a stream failed that began with 200."""
        self.keep = keep
        self.begun = begun
        self.counted = None
        self.see_attempts()

    def see_attempts(self) -> None:
        """Find out once, for all who write it down, whether it had one attempt alone."""
        attempts = self.exchange.attempts
        self.only = attempts[0] if len(attempts) == 1 and not self.exchange.child_calls else None

    @property
    def body(self) -> KeptBody | None:
        """The answer, where it was kept, as far as it was: of one broken off, what had come."""
        return None if self.keep is None else self.keep.body


class Log(Protocol):
    def ended(self, ended: Ended) -> AccessLine | None:
        """Gives what it says of the call; None where it says nothing."""
        ...

    def refused(self, call: Recorded, error: ProxyError) -> None:
        """A request that ended before it was an exchange."""
        ...

    def left(self, call: Recorded) -> None:
        """A request whose client left before it was an exchange."""
        ...

    def told(self, call: Recorded, whole: Whole) -> None:
        """A client is about to be told of an error."""
        ...

    def own(self, call: Recorded) -> None:
        """A call of one of our own endpoints."""
        ...


class Metrics(Protocol):
    def begin(self, exchange: Exchange) -> object:
        """Gives what is to be known of the call when it ends: `Ended.begun`."""
        ...

    def counted_whole(self, ended: Ended) -> bool:
        """
        Count the end of a call and its bill, which is its outcome, in one go, if it is one like most.

        False: nothing was counted; call `ended`, then `billed`.
        """
        ...

    def ended(self, ended: Ended) -> None: ...

    def billed(self, ended: Ended, bill: Outcome) -> None:
        """Everything that the exchange pays for is over."""
        ...

    def refused(self, status: int) -> None: ...


class Tracer(Protocol):
    def begin(self, incoming: Incoming, exchange: Exchange) -> None:
        """Set `exchange.trace`."""
        ...

    def billed(self, ended: Ended, bill: Outcome) -> None: ...


class Health(Protocol):
    @property
    def llms(self) -> Mapping[str, LLMState]: ...

    def learn_from(self, exchange: Exchange, llms: Mapping[str, LLMState], only: Attempt | None = None) -> None: ...


class Window(Protocol):
    def ended(self, ended: Ended, line: AccessLine | None, *, ago_s: float = 0.0) -> None:
        """*line* is what the log says of the call, which ended *ago_s* ago; None where it says nothing."""
        ...


_NO_LLMS: Mapping[str, LLMState] = FrozenMap()


class Recorder:
    """Tells those who write down, each once, a moment later (`backlog`). What is off is None, and costs nothing."""

    def __init__(
        self,
        log: Log,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        health: Health | None = None,
        recent: Window | None = None,
        *,
        content_bytes: int = 0,
        backlog: Backlog | None = None,
    ) -> None:
        """
        *content_bytes*: how much of an answer is kept for those who write down content; 0: nobody does. *backlog* is
        the process's.
        """
        self.log = log
        self.metrics = metrics
        self.tracer = tracer
        self._content_bytes = content_bytes
        self.health = health
        self.recent = recent
        self.backlog = Backlog() if backlog is None else backlog

    def begin(self, call: Recorded, exchange: Exchange) -> Record:
        """*exchange* is *call*'s, and begins."""
        record = Record(self, call, exchange)
        if self.tracer is not None:
            self.tracer.begin(call.incoming, exchange)
        if self.metrics is not None:
            record.begun = self.metrics.begin(exchange)
        exchange.record(record)
        return record

    def answered(self, record: Record, response: Response) -> None:
        """*response* is the exchange's answer, and about to be sent."""
        if self._content_bytes:
            record.keep = response.keep_body(self._content_bytes, partial=True)

    def refused(self, call: Recorded, error: ProxyError) -> None:
        """A request ended before it was an exchange."""
        self.backlog.write()  # the log tells of what was over before first
        if self.metrics is not None:
            self.metrics.refused(error.status)
        self.log.refused(call, error)

    def left(self, call: Recorded) -> None:
        """The client left before there was an exchange."""
        self.backlog.write()
        if self.metrics is not None:
            self.metrics.refused(CLIENT_GONE)
        self.log.left(call)


class Record(Ended):
    """One call's, from its beginning to its bill. Those who write it down stay the same, also across a reload."""

    __slots__ = ("_bill", "_by", "_has_ended", "_is_waiting", "_llms")

    def __init__(self, by: Recorder, call: Recorded, exchange: Exchange) -> None:
        self._by = by
        self._llms: Mapping[str, LLMState] = _NO_LLMS if by.health is None else by.health.llms
        self._bill: Outcome | None = None
        self._is_waiting = self._has_ended = False  # to be written down; and its end is
        self.call = call
        self.exchange = exchange
        self.keep = self.begun = self.counted = None

    def finished(self, outcome: Outcome) -> None:
        """See Recording."""
        self.outcome = outcome
        if not self._is_waiting:
            self._is_waiting = True
            self._by.backlog.add(self, self.call.incoming.length)

    def completed(self, size: int) -> None:
        """Its exchange has completed with an answer of *size* bytes, and is to be finished later."""
        self._is_waiting = True
        length = self.call.incoming.length
        self._by.backlog.add(self, length if size < length or length < 0 else size)

    def billed(self, bill: Outcome) -> None:
        """See Recording."""
        self._bill = bill
        if not self._is_waiting:  # else both are written down at once, as nearly always
            self._is_waiting = True
            self._by.backlog.add(self)

    def write(self) -> None:
        """See Over: its end, and its bill, if that is known by now."""
        exchange, bill = self.exchange, self._bill
        if exchange.outcome is None:
            bill = exchange.finish_alone()
            if bill is None:
                exchange.finish(_COMPLETED)  # which tells this one of it
                bill = self._bill
            else:
                self.outcome = bill
        self._is_waiting, self._bill = False, None
        is_counted = False
        if not self._has_ended:
            self._has_ended = True
            is_counted = self._write_end(bill)
        if bill is not None:
            self._write_bill(bill, is_counted=is_counted)

    def _write_end(self, bill: Outcome | None) -> bool:
        """Gives whether the metrics have counted the *bill* with it, as nearly always where that is known."""
        outcome, metrics = self.outcome, self._by.metrics
        error = outcome.error
        if outcome.end is _ABANDONED:
            self.status = CLIENT_GONE
        else:
            self.status = self.call.status if error is None else error.status
        self.see_attempts()
        if metrics is None:
            return True
        try:
            if bill is outcome and metrics.counted_whole(self):
                return True
            metrics.ended(self)
        except BaseException as bug:  # noqa: BLE001 - the line and the spans of the call can still be written
            raise_unless_bug(bug)
            _log.exception("the end of exchange %s could not be counted", self.exchange.id)
        return False

    def _write_bill(self, bill: Outcome, *, is_counted: bool) -> None:
        """The line is not written before: it has the whole bill, and each attempt's end."""
        by, ago_s = self._by, 0.0
        if bill is not self.outcome:  # something that it pays for has outlived it
            self.outcome = bill
            self.see_attempts()
            ago_s = self.exchange.clock() - bill.ended_s
        try:
            line = by.log.ended(self)
            if by.recent is not None:
                by.recent.ended(self, line, ago_s=ago_s)
        except BaseException as bug:  # noqa: BLE001 - the metrics, the spans and the health can still be told of the call
            raise_unless_bug(bug)
            _log.exception("the line of exchange %s could not be written", self.exchange.id)
        if not is_counted and by.metrics is not None:
            by.metrics.billed(self, bill)
        if by.tracer is not None:
            by.tracer.billed(self, bill)
        if by.health is not None:
            by.health.learn_from(self.exchange, self._llms, self.only)
