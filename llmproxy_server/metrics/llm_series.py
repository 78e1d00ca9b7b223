"""What is counted of the attempts on one LLM."""

from __future__ import annotations

from collections.abc import Callable

from llmproxy_core.attempt import Attempt
from llmproxy_core.errors import FAILED_CODES, ProxyError, UpstreamError
from llmproxy_core.outcome import End
from llmproxy_core.resilience.failure import failure_of
from llmproxy_server.metrics.families import (
    ABANDONED,
    DURATION_S,
    LAST_FAILURE,
    LAST_SUCCESS,
    UPSTREAM,
    UPSTREAM_ERRORS,
)
from llmproxy_server.metrics.values import Values, labels_of

_SUM = len(DURATION_S) + 1


def kind_of(error: ProxyError) -> str:
    """
    The kind of *error*, one of a few: our own code for it, else the status that the provider gave.

    Codes of providers are not taken: they may say anything.
    """
    if not isinstance(error, UpstreamError):
        return "other"
    if error.code in FAILED_CODES:
        return error.code
    status = error.upstream_status
    return "upstream_error" if status is None or not 300 <= status < 600 else f"status_{status}"


def is_providers_fault(error: ProxyError | None) -> bool:
    """Whether *error* says something of the LLM, and not of the request."""
    return isinstance(error, UpstreamError) and failure_of(error).is_llms


class LLMSeries:
    __slots__ = (
        "_abandoned",
        "_cells",
        "_errors",
        "_last_failure",
        "_name",
        "_values",
        "last_success",
        "now",
        "upstream",
        "upstream_sum",
    )

    def __init__(self, values: Values, name: str, now: Callable[[], float]) -> None:
        labels = labels_of(llm=name)
        self._values = values
        self._cells = values.cells
        self._name = name
        self.now = now
        self.upstream = values.place(UPSTREAM, labels)
        self.upstream_sum = self.upstream + _SUM
        self.last_success = values.place(LAST_SUCCESS, labels)
        self._last_failure = values.place(LAST_FAILURE, labels)
        self._abandoned = values.place(ABANDONED, labels)
        self._errors: dict[str, int] = {}

    def broken(self, attempt: Attempt) -> None:
        """*attempt*, on this LLM, is over and gave no answer, or one that broke off."""
        if attempt.error is not None:
            self._failed(attempt, attempt.error)
        elif attempt.outcome is None or attempt.outcome.end is End.ABANDONED:
            self._cells[self._abandoned] += 1

    def _failed(self, attempt: Attempt, error: ProxyError) -> None:
        cells, kind = self._cells, kind_of(error)
        index = self._errors.get(kind)
        if index is None:
            labels = labels_of(llm=self._name, code=kind)
            index = self._errors[kind] = self._values.place(UPSTREAM_ERRORS, labels)
        cells[index] += 1
        self.judge(attempt)

    def judge(self, attempt: Attempt) -> None:
        """Note whether *attempt*, which is over, was answered: all that a probe is counted for."""
        if is_providers_fault(attempt.error):
            self._cells[self._last_failure] = self.now()
        elif attempt.status is not None:  # it answered: what it said of the request is another matter
            self._cells[self.last_success] = self.now()
