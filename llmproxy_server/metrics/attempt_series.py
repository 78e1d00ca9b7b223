"""What is counted of an attempt: of its LLM, of its model, and as the GenAI conventions have it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.gateway import Gateway
from llmproxy_core.group_config import GroupConfig
from llmproxy_server.metrics.call_series import CallSeries
from llmproxy_server.metrics.families import CONFIGURED, DURATION_S, SERVES
from llmproxy_server.metrics.genai import GenAI, GenAISeries
from llmproxy_server.metrics.llm_series import LLMSeries, kind_of
from llmproxy_server.metrics.model_names import OTHER, ModelNames
from llmproxy_server.metrics.usual_series import UsualSeries
from llmproxy_server.metrics.values import Values, labels_of

_REMEMBERED = 4096
_LONGEST = 1024


class AttemptSeries:
    """The series that equal attempts add to."""

    __slots__ = ("_cells", "_genai", "_llm", "_values", "calls", "usual")

    def __init__(self, values: Values, llm: LLMSeries, calls: CallSeries, genai: GenAISeries | None) -> None:
        self._values = values
        self._cells = values.cells
        self._llm = llm
        self.calls = calls
        """Of the model that the attempt is counted as."""
        self._genai = genai
        self.usual: UsualSeries | None = None
        """What is quicker for most; there once one of them was counted."""

    def add(self, attempt: Attempt) -> None:
        """*attempt* is over."""
        ended_s, outcome, cells, llm = attempt.ended_s, attempt.outcome, self._cells, self._llm
        seconds = 0.0 if ended_s is None else ended_s - attempt.started_s
        cells[llm.upstream + bisect_left(DURATION_S, seconds)] += 1
        cells[llm.upstream_sum] += seconds
        if attempt.error is None and attempt.status is not None:
            cells[llm.last_success] = llm.now()
        else:
            llm.broken(attempt)
        if outcome is not None:
            self.calls.used(outcome.usage, outcome.cost)
        genai = self._genai
        if genai is not None:
            genai.add(attempt, outcome)
            if self.usual is None and genai.is_whole:
                self.usual = UsualSeries(self._values, self.calls, llm, genai)


class AttemptTable:
    """Finds the series of attempts; what was found is remembered, as much as is bounded."""

    def __init__(
        self,
        values: Values,
        gateway: Gateway,
        names: ModelNames,
        genai: GenAI,
        calls: Callable[[str], CallSeries],
    ) -> None:
        self._values = values
        self._names = names
        self._genai = genai
        self._calls = calls
        self._now = gateway.services.now
        configured = gateway.config.llms
        callable_ones = (name for name in gateway.llms if not isinstance(configured.get(name), GroupConfig))
        self._llms = {name: LLMSeries(values, name, self._now) for name in callable_ones}
        self._configured = [values.place(CONFIGURED, labels_of(llm=name)) for name in self._llms]
        self._found: dict[tuple[str | None, ...], AttemptSeries] = {}
        self.current = False
        """Whether its gateway serves: what one that is replaced still answers does not tell who serves which model."""

    def activate(self) -> None:
        """Its gateway serves from now on: these LLMs, and no others, can be called."""
        self.current = True
        self._values.clear(CONFIGURED.name)
        for index in self._configured:
            self._values.cells[index] = 1

    def probed(self, llm: str, attempt: Attempt) -> None:
        """The LLM *llm* was asked how it is, by *attempt*, which is over."""
        if (series := self._llms.get(llm)) is not None:
            series.judge(attempt)

    def of(self, attempt: Attempt, operation: Operation) -> AttemptSeries:
        """The series of *attempt*, which is over; *operation* of its exchange."""
        outcome, request = attempt.outcome, attempt.request
        answered = None if outcome is None else outcome.model
        failure = None if attempt.error is None else kind_of(attempt.error)
        asked, api = None, None
        if request is not None:
            api = request.api
            try:
                asked = request.model
            except ProxyError:  # what a processor made of it cannot be read
                asked = None
        key = (attempt.llm, asked, attempt.model, answered, failure, operation if api is None else api.name)
        return self._found.get(key) or self._remember(key, self._make(attempt, operation))

    def _remember(self, key: tuple[str | None, ...], found: AttemptSeries) -> AttemptSeries:
        if sum(len(part or "") for part in key) <= _LONGEST:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()  # names are the callers' choice, and the providers'
            self._found[key] = found
        return found

    def _make(self, attempt: Attempt, operation: Operation) -> AttemptSeries:
        llm = self._llms.get(attempt.llm)
        if llm is None:  # of an LLM that a plugin makes up
            llm = self._llms[OTHER] = self._llms.get(OTHER) or LLMSeries(self._values, OTHER, self._now)
        model = self._names.of(attempt)
        if self.current and model != OTHER and attempt.llm in self._llms:
            self._values.cells[self._values.place(SERVES, labels_of(model=model, llm=attempt.llm))] = 1
        return AttemptSeries(self._values, llm, self._calls(model), self._genai.series(attempt, operation))
