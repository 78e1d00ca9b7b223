"""What is counted of an attempt as the GenAI semantic conventions have it: one observation for each attempt."""

from __future__ import annotations

from bisect import bisect_left
from urllib.parse import urlsplit

from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Operation
from llmproxy_core.gateway import Gateway
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.usage import Usage
from llmproxy_server.metrics.genai_families import (
    SECONDS,
    TOKENS,
    GenAIFamilies,
    newest,
    newest_of_embeddings,
    released,
)
from llmproxy_server.metrics.llm_series import kind_of
from llmproxy_server.metrics.model_names import ModelNames
from llmproxy_server.metrics.values import Family, Labels, Values, labels_of
from llmproxy_server.telemetry.conventions import operation_name, provider_name

_SECONDS_SUM = len(SECONDS) + 1
_TOKENS_SUM = len(TOKENS) + 1
_TOKENS = tuple(map(int, TOKENS))  # what is compared with them is an int, too
_PORTS = {"http": 80, "https": 443}


class GenAI:
    """Makes the series of attempts."""

    def __init__(self, values: Values, gateway: Gateway, names: ModelNames) -> None:
        config = gateway.config
        self._values = values
        self._names = names
        is_newest = config.telemetry.newest_metric_names
        self._families = newest() if is_newest else released()
        self._of_embeddings = newest_of_embeddings() if is_newest else self._families
        self._llms = {name: _llm_labels(llm) for name, llm in config.llms.items()}

    def series(self, attempt: Attempt, operation: Operation) -> GenAISeries | None:
        """None for what is no operation of a model: lists, counts, and what nobody looks into."""
        request, outcome = attempt.request, attempt.outcome
        operation = operation if request is None else request.operation
        named = operation_name(operation, None if request is None else request.api)
        families = self._of_embeddings if operation is Operation.EMBEDDINGS else self._families
        if named is None:
            return None
        sent = self._names.sent(attempt)
        labels = {**self._llms.get(attempt.llm, {}), "gen_ai_operation_name": named, "gen_ai_request_model": sent}
        if outcome is not None and outcome.model in self._names.written and outcome.model is not None:
            labels["gen_ai_response_model"] = outcome.model
        error = attempt.error
        failed = {} if error is None else {"error_type": kind_of(error).removeprefix("status_")}
        of_duration = labels_of(**labels, **failed)
        if not self._values.admits(families.duration, of_duration):
            return None
        return GenAISeries(self._values, families, labels_of(**labels), of_duration)


def _llm_labels(config: LLMConfig) -> dict[str, str]:
    labels = {"gen_ai_provider_name": provider_name(config)}
    if isinstance(config, HttpLLMConfig):
        url = urlsplit(config.base_url)
        labels["server_address"] = url.hostname or ""
        labels["server_port"] = str(url.port or _PORTS.get(url.scheme, 0))
    return labels


class GenAISeries:
    """Those that equal attempts add to. What only some attempts have is made when it is first there."""

    __slots__ = (
        "_cells",
        "_families",
        "first_chunk",
        "_labels",
        "per_chunk",
        "_usage",
        "_values",
        "duration",
        "duration_sum",
        "input",
        "output",
    )

    def __init__(self, values: Values, families: GenAIFamilies, labels: Labels, failed: Labels) -> None:
        """*failed*: the *labels* with those of a failure, if it was one."""
        self._values = values
        self._cells = values.cells
        self._families = families
        self._labels = labels
        self.duration = values.place(families.duration, failed)
        self.duration_sum = self.duration + _SECONDS_SUM
        self.first_chunk: int | None = None
        self.per_chunk: int | None = None
        self.input: int | None = None
        self.output: int | None = None
        self._usage: dict[str, int] = {}

    @property
    def is_whole(self) -> bool:
        """Whether what most attempts have is there, and all that is counted of them: see UsualSeries."""
        return self.input is not None and self.output is not None and not self._families.usage

    def add(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """*attempt* is over, with *outcome*."""
        began_s = attempt.started_s if attempt.sent_s is None else attempt.sent_s
        cells, ended_s = self._cells, attempt.ended_s
        seconds = 0.0 if ended_s is None else ended_s - began_s
        cells[self.duration + bisect_left(SECONDS, seconds)] += 1
        cells[self.duration_sum] += seconds
        if outcome is None:
            return
        usage, first_s = outcome.usage, outcome.first_byte_s
        if first_s is not None and first_s > outcome.started_s:  # a stream: a whole reply begins when it is there
            self._chunks(first_s - began_s, outcome, usage, (ended_s or outcome.ended_s) - first_s)
        if usage is None:
            return
        count, start, families = usage.input_tokens, self.input, self._families
        if start is None:
            start = self.input = self._place_tokens(families.input, "input")
        cells[start + bisect_left(_TOKENS, count)] += 1
        cells[start + _TOKENS_SUM] += count
        if (count := usage.output_tokens) and families.output is not None:  # embeddings have none
            start = self.output
            if start is None:
                start = self.output = self._place_tokens(families.output, "output")
            cells[start + bisect_left(_TOKENS, count)] += 1
            cells[start + _TOKENS_SUM] += count
        if families.usage:
            self._count(usage)

    def _chunks(self, first_chunk_s: float, outcome: Outcome, usage: Usage | None, rest_s: float) -> None:
        """*rest_s*: from the first chunk to the last."""
        cells, start, families = self._cells, self.first_chunk, self._families
        if families.first_chunk is None or families.per_chunk is None:
            return
        if start is None:
            start = self.first_chunk = self._values.place(families.first_chunk, self._labels)
        cells[start + bisect_left(SECONDS, first_chunk_s)] += 1
        cells[start + _SECONDS_SUM] += first_chunk_s
        if usage is None or usage.output_tokens < 2 or outcome.end is not End.COMPLETED:
            return
        start = self.per_chunk
        if start is None:
            start = self.per_chunk = self._values.place(families.per_chunk, self._labels)
        seconds = rest_s / (usage.output_tokens - 1)
        cells[start + bisect_left(SECONDS, seconds)] += 1
        cells[start + _SECONDS_SUM] += seconds

    def _count(self, usage: Usage) -> None:
        for field, family in self._families.usage:
            if used := getattr(usage, field):
                index = self._usage.get(field)
                if index is None:
                    index = self._usage[field] = self._values.place(family, self._labels)
                self._cells[index] += used

    def _place_tokens(self, family: Family, kind: str) -> int:
        typed = {"gen_ai_token_type": kind} if self._families.typed else {}
        return self._values.place(family, labels_of(**dict(self._labels), **typed))
