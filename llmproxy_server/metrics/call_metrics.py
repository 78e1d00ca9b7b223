"""The metrics of one gateway's calls."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter

from llmproxy_core.attempt import Attempt
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.gateway import Gateway
from llmproxy_core.money import Money
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.usage import Usage
from llmproxy_server.metrics.attempt_series import AttemptSeries, AttemptTable
from llmproxy_server.metrics.call_series import CallSeries
from llmproxy_server.metrics.families import ACTIVE, OVERHEAD, OVERHEAD_S, SERVES, STREAMS
from llmproxy_server.metrics.genai import GenAI
from llmproxy_server.metrics.model_names import OTHER, ModelNames
from llmproxy_server.metrics.values import Values, labels_of
from llmproxy_server.record import Ended

_OVERHEAD_SUM = len(OVERHEAD_S) + 1
_REMEMBERED = 4096
_LONGEST = 256
_NOTHING = Money()
_STARTED = attrgetter("started_s")
_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
)


class Begun:
    """What calls for a model are counted as when they begin. *certain*: that stays so, whatever becomes of them."""

    __slots__ = ("asked", "certain", "series")

    def __init__(self, series: CallSeries, asked: str | None, *, certain: bool) -> None:
        self.series = series
        self.asked = asked
        self.certain = certain


class CallMetrics:
    """
    See Metrics. What it gives for a call that begins is a Begun.

    Its series are those of the process: another gateway's, after a reload, go on with them.

    What callers made up is no label. The names of the configuration are, whatever becomes of the call, and those that a
    price list has for what was sent.
    """

    def __init__(self, values: Values, gateway: Gateway) -> None:
        self._values = values
        self._cells = values.cells
        self._names = ModelNames(gateway)
        self._models: dict[str, CallSeries] = {}
        self._other = CallSeries(values, OTHER)
        self._models[OTHER] = self._other
        self._known: dict[str | None, Begun] = {}
        self._guesses: dict[tuple[str, str | None], Begun] = {}
        self._streams = values.place(STREAMS)
        self._overhead = values.place(OVERHEAD)
        self._overhead_sum = self._overhead + _OVERHEAD_SUM
        self._attempts = AttemptTable(values, gateway, self._names, GenAI(values, gateway, self._names), self.model)

    def model(self, name: str) -> CallSeries:
        """The series of the label *name*; those of `other` when there is no room for more."""
        found = self._models.get(name)
        if found is None:
            admitted = self._values.admits(ACTIVE, labels_of(model=name))
            found = self._models[name] = CallSeries(self._values, name) if admitted else self._other
        return found

    def activate(self) -> None:
        """The gateway serves from now on: say which LLMs serve which models."""
        self._attempts.activate()
        self._values.clear(SERVES.name)
        for model, llm in self._names.serving():
            self._cells[self._values.place(SERVES, labels_of(model=model, llm=llm))] = 1

    def replaced(self) -> None:
        """Another gateway serves from now on; the calls that this one has begun go on."""
        self._attempts.current = False

    # -- told by the recorder ------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> Begun:
        try:
            asked = exchange.request.model
        except ProxyError:  # it will be refused
            asked = None
        begun = self._known.get(asked) or self._guesses.get((exchange.route, asked))
        if begun is None:
            begun = self._guess(exchange.route, asked)
        cells = self._cells
        cells[begun.series.active] += 1
        client = exchange.client
        if client is not None and client.stream:
            cells[self._streams] += 1
        return begun

    def counted_whole(self, ended: Ended) -> bool:
        attempt, begun, client = ended.only, ended.begun, ended.exchange.client
        if attempt is None or ended.status != 200 or attempt.error is not None or (answer := attempt.outcome) is None:
            return False
        assert isinstance(begun, Begun)
        found = self._attempts.of(attempt, ended.exchange.operation)
        usual, stream = found.usual, client is not None and client.stream
        return usual is not None and found.calls is begun.series and usual.count(ended, attempt, answer, stream=stream)

    def ended(self, ended: Ended) -> None:
        exchange, outcome, begun, cells = ended.exchange, ended.outcome, ended.begun, self._cells
        assert isinstance(begun, Begun)
        now, began_s, series = outcome.ended_s, ended.call.began_s, begun.series
        cells[series.active] -= 1
        attempts = exchange.attempts
        if attempts:
            attempt = attempts[-1]
            is_over = attempt.outcome is not None or attempt.error is not None
            if is_over or not begun.certain:
                found = self._attempts.of(attempt, exchange.operation)
                if is_over:  # nothing will be known of it that is not known now
                    ended.counted = found
                if not begun.certain:  # it is what its LLM was sent
                    series = found.calls
                    if series is not begun.series and series is not self._other:
                        self._remember(exchange.route, begun.asked, series.model)
            if ended.only is not None:
                ended_s = attempt.ended_s
                seconds = now - exchange.started_s - ((now if ended_s is None else ended_s) - attempt.started_s)
            else:
                seconds = now - exchange.started_s - _covered(exchange, now)
            seconds = max(seconds, 0.0)
            cells[self._overhead + bisect_left(OVERHEAD_S, seconds)] += 1
            cells[self._overhead_sum] += seconds
        elif series is self._other and not begun.certain:  # a processor may have asked for the price meanwhile
            series = self._guess(exchange.route, begun.asked).series
        series.ended(ended.status, now - began_s)
        client = exchange.client
        if client is not None and client.stream:
            cells[self._streams] -= 1
            _stream_times(series, outcome, attempts[-1].outcome if attempts else None, began_s)

    def billed(self, ended: Ended, bill: Outcome) -> None:
        exchange, attempt = ended.exchange, ended.only
        if attempt is not None:
            found = ended.counted
            found = found if isinstance(found, AttemptSeries) else self._attempts.of(attempt, exchange.operation)
            found.add(attempt)
            if (outcome := attempt.outcome) is not None and outcome.usage is bill.usage:
                return
        else:
            for attempt in _all_attempts(exchange):
                self._attempts.of(attempt, exchange.operation).add(attempt)
        self._count_rest(ended, exchange, bill)

    def _count_rest(self, ended: Ended, exchange: Exchange, bill: Outcome) -> None:
        """Count what is on the *bill* and in no attempt: an LLM of a plugin's may not record any."""
        usage, cost = bill.usage, bill.cost
        for attempt in _all_attempts(exchange):
            if (outcome := attempt.outcome) is not None:
                usage = _less(usage, outcome.usage)
                cost = None if cost is None else cost - (outcome.cost or _NOTHING)
        begun = ended.begun
        assert isinstance(begun, Begun)
        begun.series.used(usage, cost if cost is not None and cost > _NOTHING else None)

    def probed(self, llm: str, attempt: Attempt) -> None:
        """The LLM *llm* was asked how it is, by *attempt*, which is over; it counts as no call."""
        self._attempts.probed(llm, attempt)

    def refused(self, status: int) -> None:
        self._other.refused(status)

    # -- which model ---------------------------------------------------------------------------------------------

    def _guess(self, route: str, asked: str | None) -> Begun:
        """
        What calls for a name are counted as that is seen for the first time, or that is nobody's but the caller's.

        The latter are what such a call was the last time; their attempts tell more.
        """
        if asked is not None and asked in self._names.written:
            begun = self._known[asked] = Begun(self.model(asked), asked, certain=True)
            return begun
        remembered = self._guesses.get((route, asked))
        if remembered is not None:
            return remembered
        model = self._names.asked(route, asked)
        if model is None:
            return Begun(self._other, asked, certain=False)
        return self._remember(route, asked, model)

    def _remember(self, route: str, asked: str | None, model: str) -> Begun:
        begun = Begun(self.model(model), asked, certain=False)
        if len(asked or "") <= _LONGEST:
            if len(self._guesses) >= _REMEMBERED:
                self._guesses.clear()  # names are the callers' choice
            self._guesses[route, asked] = begun
        return begun


def _all_attempts(exchange: Exchange) -> Sequence[Attempt]:
    return [*exchange.attempts, *exchange.child_attempts] if exchange.child_calls else exchange.attempts


def _covered(exchange: Exchange, now: float) -> float:
    """How many seconds of *exchange* at least one attempt was under way."""
    covered, end = 0.0, exchange.started_s
    for attempt in sorted(_all_attempts(exchange), key=_STARTED):
        start = max(attempt.started_s, end)
        stop = now if attempt.ended_s is None else min(attempt.ended_s, now)
        if stop > start:
            covered += stop - start
            end = stop
    return covered


def _stream_times(series: CallSeries, outcome: Outcome, answer: Outcome | None, began_s: float) -> None:
    """Count the times of a stream that ended with *outcome*; *answer*: of the last attempt, where there was one."""
    first_s = outcome.first_byte_s
    if first_s is None:
        return
    series.first_token(max(first_s - began_s, 0.0))
    usage = outcome.usage if answer is None else answer.usage  # without what processors asked for besides
    if usage is not None and usage.output_tokens > 1 and outcome.end is End.COMPLETED:
        series.per_token((outcome.ended_s - first_s) / (usage.output_tokens - 1))


def _less(usage: Usage | None, part: Usage | None) -> Usage | None:
    """What of *usage* is not in *part*; None when that is nothing."""
    if usage is None or part is None:
        return usage
    if usage is part or usage.total_tokens <= part.total_tokens:
        return None
    left = {name: max(getattr(usage, name) - getattr(part, name), 0) for name in _COUNTS}
    return Usage(**left)
