"""What is counted of the calls for one model."""

from __future__ import annotations

from bisect import bisect_left

from llmproxy_core.money import Money
from llmproxy_core.usage import Usage
from llmproxy_server.metrics.families import (
    ACTIVE,
    COST,
    DURATION,
    DURATION_S,
    FIRST_TOKEN,
    FIRST_TOKEN_S,
    PER_TOKEN,
    PER_TOKEN_S,
    REQUESTS,
    TOKENS,
)
from llmproxy_server.metrics.values import Values, labels_of

_DURATION_SUM = len(DURATION_S) + 1
_FIRST_SUM = len(FIRST_TOKEN_S) + 1
_PER_SUM = len(PER_TOKEN_S) + 1
_NANO = 1e9
_PARTS = (
    ("cached_input", "cached_input_tokens"),
    ("cache_write", "cache_write_tokens"),
    ("reasoning", "reasoning_tokens"),
    ("audio_input", "audio_input_tokens"),
    ("audio_output", "audio_output_tokens"),
)
"""Values of the label `type`, and the fields of a usage that they are; input and output include them."""


class CallSeries:
    """The series of one value of the label `model`."""

    __slots__ = (
        "_cells",
        "time_to_first",
        "_parts",
        "time_per_token",
        "_statuses",
        "_values",
        "active",
        "answered",
        "cost",
        "duration",
        "duration_sum",
        "input",
        "model",
        "output",
    )

    def __init__(self, values: Values, model: str) -> None:
        labels = labels_of(model=model)
        self.model = model
        self._values = values
        self._cells = values.cells
        self.active = values.place(ACTIVE, labels)
        self.duration = values.place(DURATION, labels)
        self.duration_sum = self.duration + _DURATION_SUM
        self.time_to_first = values.place(FIRST_TOKEN, labels)
        self.time_per_token = values.place(PER_TOKEN, labels)
        self.cost = values.place(COST, labels)
        self.input = values.place(TOKENS, labels_of(model=model, type="input"))
        self.output = values.place(TOKENS, labels_of(model=model, type="output"))
        self._parts: dict[str, int] = {}
        self.answered = values.place(REQUESTS, labels_of(model=model, status="200"))
        self._statuses = {200: self.answered}

    def ended(self, status: int, seconds: float) -> None:
        """A call is over that took *seconds*, and *status* is what was sent."""
        cells, index = self._cells, self._statuses.get(status)
        if index is None:
            index = self._status(status)
        cells[index] += 1
        cells[self.duration + bisect_left(DURATION_S, seconds)] += 1
        cells[self.duration_sum] += seconds

    def refused(self, status: int) -> None:
        """A call was refused before it was one."""
        self._cells[self._statuses.get(status) or self._status(status)] += 1

    def _status(self, status: int) -> int:
        labels = labels_of(model=self.model, status=str(status))
        index = self._statuses[status] = self._values.place(REQUESTS, labels)
        return index

    def first_token(self, seconds: float) -> None:
        cells, start = self._cells, self.time_to_first
        cells[start + bisect_left(FIRST_TOKEN_S, seconds)] += 1
        cells[start + _FIRST_SUM] += seconds

    def per_token(self, seconds: float) -> None:
        cells, start = self._cells, self.time_per_token
        cells[start + bisect_left(PER_TOKEN_S, seconds)] += 1
        cells[start + _PER_SUM] += seconds

    def used(self, usage: Usage | None, cost: Money | None) -> None:
        """A model has worked, for that price."""
        cells = self._cells
        if cost is not None:
            cells[self.cost] += cost.nanodollars / _NANO
        if usage is None:
            return
        cells[self.input] += usage.input_tokens
        cells[self.output] += usage.output_tokens
        self.used_parts(usage)

    def used_parts(self, usage: Usage) -> None:
        """Count those of the tokens of *usage* that have a kind; mostly none has."""
        if not (
            usage.cached_input_tokens
            or usage.reasoning_tokens
            or usage.cache_write_tokens
            or usage.audio_input_tokens
            or usage.audio_output_tokens
        ):
            return
        for kind, field in _PARTS:
            if count := getattr(usage, field):
                index = self._parts.get(kind)
                if index is None:
                    labels = labels_of(model=self.model, type=kind)
                    index = self._parts[kind] = self._values.place(TOKENS, labels)
                self._cells[index] += count
