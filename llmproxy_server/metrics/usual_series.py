"""What is counted of a call like most, in one go: one attempt, an answer with status 200, tokens in and out."""

from __future__ import annotations

from bisect import bisect_left

from llmproxy_core.attempt import Attempt
from llmproxy_core.outcome import Outcome
from llmproxy_server.metrics import genai_families
from llmproxy_server.metrics.call_series import CallSeries
from llmproxy_server.metrics.families import DURATION_S, FIRST_TOKEN_S, OVERHEAD, OVERHEAD_S, PER_TOKEN_S, STREAMS
from llmproxy_server.metrics.genai import GenAISeries
from llmproxy_server.metrics.llm_series import LLMSeries
from llmproxy_server.metrics.values import Values
from llmproxy_server.record import Ended

_OVERHEAD_SUM = len(OVERHEAD_S) + 1
_FIRST_SUM = len(FIRST_TOKEN_S) + 1
_PER_SUM = len(PER_TOKEN_S) + 1
_NANO = 1e9
_SECONDS = genai_families.SECONDS
_SECONDS_SUM = len(_SECONDS) + 1
_TOKENS = tuple(map(int, genai_families.TOKENS))  # what is compared with them is an int, too


class UsualSeries:
    """
    All series that such calls for one model to one LLM add to, by their cells.

    What CallMetrics, CallSeries, LLMSeries and GenAISeries add of one, each for itself and for any call, is added here
    in a third of the time.
    """

    __slots__ = (
        "_active",
        "_calls",
        "_cells",
        "_cost",
        "_duration",
        "_duration_sum",
        "_first_token",
        "_genai",
        "_genai_series",
        "_genai_sum",
        "_input",
        "_input_sum",
        "_last_success",
        "_now",
        "_output",
        "_output_sum",
        "_overhead",
        "_overhead_sum",
        "_per_token",
        "_requests",
        "_streams",
        "_tokens_in",
        "_tokens_out",
        "_upstream",
        "_upstream_sum",
    )

    def __init__(self, values: Values, calls: CallSeries, llm: LLMSeries, genai: GenAISeries) -> None:
        """*genai* has counted such a call already: its series are there."""
        assert genai.input is not None
        assert genai.output is not None
        self._cells = values.cells
        self._calls = calls
        self._active, self._requests, self._cost = calls.active, calls.answered, calls.cost
        self._tokens_in, self._tokens_out = calls.input, calls.output
        self._first_token, self._per_token = calls.time_to_first, calls.time_per_token
        self._streams = values.place(STREAMS)
        self._duration, self._duration_sum = calls.duration, calls.duration_sum
        self._overhead = values.place(OVERHEAD)
        self._overhead_sum = self._overhead + _OVERHEAD_SUM
        self._upstream, self._upstream_sum = llm.upstream, llm.upstream_sum
        self._last_success, self._now = llm.last_success, llm.now
        self._genai_series = genai  # what streams alone have is there with the first of them
        self._genai, self._genai_sum = genai.duration, genai.duration_sum
        self._input, self._input_sum = genai.input, genai.input + len(_TOKENS) + 1
        self._output, self._output_sum = genai.output, genai.output + len(_TOKENS) + 1

    def count(self, ended: Ended, attempt: Attempt, answer: Outcome, *, stream: bool) -> bool:
        """
        Count a call that is over and paid, of one *attempt* that gave *answer*, which was asked for as a *stream*.

        False, and nothing is counted, where it is not like most.
        """
        outcome, usage, ended_s, sent_s = ended.outcome, answer.usage, attempt.ended_s, attempt.sent_s
        if usage is None or usage is not outcome.usage or ended_s is None or sent_s is None or attempt.status is None:
            return False
        first_s, asked, answered = answer.first_byte_s, usage.input_tokens, usage.output_tokens
        if not answered:
            return False
        if first_s is not None and first_s > answer.started_s:  # a stream: a whole reply begins when it is there
            if not (stream and self._count_stream(ended, answered, first_s, sent_s, ended_s)):
                return False
        elif stream:
            return False
        cells, now, started_s = self._cells, outcome.ended_s, attempt.started_s
        cells[self._active] -= 1.0  # of a float a float is taken at half the cost
        cells[self._requests] += 1.0
        seconds = now - ended.call.began_s
        cells[self._duration + bisect_left(DURATION_S, seconds)] += 1.0
        cells[self._duration_sum] += seconds
        seconds = ended_s - started_s
        cells[self._upstream + bisect_left(DURATION_S, seconds)] += 1.0
        cells[self._upstream_sum] += seconds
        seconds = max(now - ended.exchange.started_s - seconds, 0.0)
        cells[self._overhead + bisect_left(OVERHEAD_S, seconds)] += 1.0
        cells[self._overhead_sum] += seconds
        seconds = ended_s - sent_s
        cells[self._genai + bisect_left(_SECONDS, seconds)] += 1.0
        cells[self._genai_sum] += seconds
        cells[self._tokens_in] += asked
        cells[self._input + bisect_left(_TOKENS, asked)] += 1.0
        cells[self._input_sum] += asked
        cells[self._tokens_out] += answered
        cells[self._output + bisect_left(_TOKENS, answered)] += 1.0
        cells[self._output_sum] += answered
        cells[self._last_success] = self._now()
        if (cost := answer.cost) is not None:
            cells[self._cost] += cost.nanodollars / _NANO
        self._calls.used_parts(usage)
        return True

    def _count_stream(self, ended: Ended, answered: int, first_s: float, sent_s: float, ended_s: float) -> bool:
        """Count what a stream alone has; False, and nothing is counted, where it is not like most."""
        outcome, cells = ended.outcome, self._cells
        genai, shown_s = self._genai_series, outcome.first_byte_s
        first_chunk, per_chunk = genai.first_chunk, genai.per_chunk
        if first_chunk is None or per_chunk is None or shown_s is None or answered < 2:
            return False
        cells[self._streams] -= 1.0
        seconds = max(shown_s - ended.call.began_s, 0.0)
        cells[self._first_token + bisect_left(FIRST_TOKEN_S, seconds)] += 1.0
        cells[self._first_token + _FIRST_SUM] += seconds
        seconds = (outcome.ended_s - shown_s) / (answered - 1)
        cells[self._per_token + bisect_left(PER_TOKEN_S, seconds)] += 1.0
        cells[self._per_token + _PER_SUM] += seconds
        seconds = first_s - sent_s
        cells[first_chunk + bisect_left(_SECONDS, seconds)] += 1.0
        cells[first_chunk + _SECONDS_SUM] += seconds
        seconds = (ended_s - first_s) / (answered - 1)
        cells[per_chunk + bisect_left(_SECONDS, seconds)] += 1.0
        cells[per_chunk + _SECONDS_SUM] += seconds
        return True
