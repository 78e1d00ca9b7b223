"""What is counted of a call, to the number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llmproxy_core import End as EndOf
from llmproxy_core import Money, Outcome, Reply, Request, Usage
from llmproxy_core.attempt import Attempt, ChildCall
from llmproxy_core.deadline import deadline_exceeded
from llmproxy_core.errors import FAILED_CODES, BadRequest, UpstreamConnectError, UpstreamError
from llmproxy_server.access_line import access_line
from llmproxy_server.metrics.families import OVERHEAD_S
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.values import Values
from tests.llmproxy_server.metrics.counting import COST, USAGE, Counting
from tests.llmproxy_server.metrics.scraping import MODEL, priced_at
from tests.proxy import openai_at

URL = "http://127.0.0.1:9/v1"


class CountedCells:
    """Cells that say how often they were written."""

    def __init__(self, size: int) -> None:
        self.cells = [0.0] * size
        self.writes = 0

    def __getitem__(self, index: int) -> float:
        return self.cells[index]

    def __setitem__(self, index: int, value: float) -> None:
        self.writes += 1
        self.cells[index] = value

    def __len__(self) -> int:
        return len(self.cells)


@contextmanager
def placing(values: Values) -> Iterator[list[object]]:
    """The series that are asked for meanwhile."""
    found: list[object] = []
    place = values.place

    def counted(*arguments: object) -> int:
        found.append(arguments)
        return place(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "place", counted)
        yield found


@pytest.mark.parametrize(("stream", "most"), [(False, 21), (True, 30)])
@pytest.mark.parametrize("model", [MODEL, "made-up"])
def test_a_call_is_a_few_additions_and_looks_nothing_up(model: str, stream: bool, most: int) -> None:
    cells = CountedCells(1 << 16)
    metering = Metering(Values(cells))  # type: ignore[arg-type]
    counting = Counting(openai_at(URL, prices={MODEL: {"input": "1", "output": "2"}}), metering)
    first = 0.1 if stream else None
    counting.one(model, stream=stream, first_byte_s=first)
    cells.writes = 0

    with placing(metering.values) as placed:
        counting.one(model, stream=stream, first_byte_s=first)

    assert placed == []
    assert 0 < cells.writes <= most


def test_attempts_are_counted_by_the_model_that_each_was_for() -> None:
    """A processor's own call to another model is paid by the call, and is that model's all the same."""
    counting = Counting(openai_at(URL, models=[MODEL, "helper"]))
    exchange = counting.exchange(MODEL)
    counting.begin(exchange)
    child = Attempt("openai", "helper", counting.clock.now, request=exchange.request.with_model("helper"), status=200)
    child.answered(Outcome(EndOf.COMPLETED, usage=Usage(7, 2), cost=Money(10**9), model="helper", ended_s=1000.0))
    exchange._shared_calls().append(ChildCall("enhance", [child], 1000.0, 1000.0))
    counting.attempt(exchange)
    bill = Outcome(EndOf.COMPLETED, usage=USAGE + Usage(7, 2), cost=COST + Money(10**9))

    counting.end(exchange, bill=bill)

    tokens = {
        (model, kind): counting.value("llmproxy_tokens_processed_total", model=model, type=kind)
        for model in (MODEL, "helper")
        for kind in ("input", "output")
    }
    assert tokens == {(MODEL, "input"): 100, (MODEL, "output"): 50, ("helper", "input"): 7, ("helper", "output"): 2}
    assert counting.value("llmproxy_cost_usd_total", model="helper") == 1
    assert counting.value("llmproxy_cost_usd_total", model=MODEL) == pytest.approx(0.003)
    assert counting.value("llmproxy_requests_total", model="helper", status="200") == 0


def test_what_no_attempt_tells_of_is_counted_by_the_calls_model() -> None:
    """An LLM of a plugin's may record no attempts."""
    counting = Counting(priced_at(URL))
    exchange = counting.exchange(MODEL)
    counting.begin(exchange)

    counting.end(exchange, bill=Outcome(EndOf.COMPLETED, usage=Usage(10, 5), cost=Money(10**9)))

    assert counting.value("llmproxy_tokens_processed_total", model=MODEL, type="input") == 10
    assert counting.value("llmproxy_cost_usd_total", model=MODEL) == 1


def test_of_attempts_and_the_rest_nothing_is_counted_twice() -> None:
    counting = Counting(priced_at(URL))
    exchange = counting.exchange(MODEL)
    counting.begin(exchange)
    counting.attempt(exchange, error=UpstreamConnectError("refused"))
    counting.attempt(exchange)

    counting.end(exchange, bill=Outcome(EndOf.COMPLETED, usage=USAGE + Usage(1, 1), cost=COST + Money(10**9)))

    assert counting.value("llmproxy_tokens_processed_total", model=MODEL, type="input") == 101
    assert counting.value("llmproxy_cost_usd_total", model=MODEL) == pytest.approx(1.003)
    assert counting.value("llmproxy_upstream_errors_total", llm="openai", code="upstream_connect") == 1
    assert sum(counting.cells("llmproxy_upstream_duration_seconds", llm="openai")[:-1]) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UpstreamConnectError("refused"), "upstream_connect"),
        (UpstreamError("no", upstream_status=429, status=429, code="anything"), "status_429"),
        (UpstreamError("no", upstream_status=503, status=503), "status_503"),
        (UpstreamError("no", upstream_status=200, code="anything"), "upstream_error"),
        (UpstreamError("no", upstream_status=999, code="anything"), "upstream_error"),
        (BadRequest("no"), "other"),
        *[(UpstreamError("no", code=code), code) for code in sorted(FAILED_CODES)],
        (deadline_exceeded(), "deadline_exceeded"),
    ],
)
def test_the_kinds_of_errors_are_a_few(error: UpstreamError, kind: str) -> None:
    counting = Counting(priced_at(URL))

    counting.one(MODEL, error=error)

    assert counting.value("llmproxy_upstream_errors_total", llm="openai", code=kind) == 1


def test_our_own_time_is_what_no_attempt_covers() -> None:
    counting = Counting(priced_at(URL))
    clock, began_s = counting.clock, counting.clock.now
    exchange = counting.exchange(MODEL)
    counting.begin(exchange)
    clock.now += 0.002  # ours
    counting.attempt(exchange, 0.5, error=UpstreamConnectError("refused"))
    clock.now += 0.003  # ours
    # Two at once, of which the second goes on for longer: 0.4 s and not 0.6.
    first = counting.attempt(exchange, 0.3)
    second = counting.attempt(exchange, 0.1, first_byte_s=0.05)
    second.started_s = first.started_s + 0.1
    clock.now += 0.005  # ours

    counting.end(exchange, began_s=began_s)

    cells = counting.cells("llmproxy_overhead_seconds")
    assert cells[-1] == pytest.approx(0.010)
    assert cells[OVERHEAD_S.index(0.01) : OVERHEAD_S.index(0.01) + 2].count(1) == 1


def test_what_processors_do_with_a_whole_answer_is_our_own_time_and_no_upstreams() -> None:
    counting = Counting(priced_at(URL))
    began_s = counting.clock.now
    exchange = counting.exchange(MODEL)
    counting.begin(exchange)
    attempt = Attempt("openai", MODEL, began_s, request=exchange.request, sent_s=began_s, status=200)
    exchange.attempts.append(attempt)
    counting.clock.now += 0.5
    assert exchange.request.dialect is not None
    answer = Reply(
        exchange, b"{}", dialect=exchange.request.dialect, api=exchange.request.api, llm="openai", attempt=attempt
    )
    counting.clock.now += 7
    answer.finish(EndOf.COMPLETED)

    ended = counting.end(exchange, began_s=began_s)

    upstream = counting.cells("llmproxy_upstream_duration_seconds", llm="openai")[-1]
    ours = counting.cells("llmproxy_overhead_seconds")[-1]
    (genai,) = counting.metering.snapshot().of("gen_ai_client_operation_duration_seconds").cells.values()
    assert [upstream, ours, genai[-1]] == pytest.approx([0.5, 7, 0.5])
    assert access_line(ended, counting.clock.now).overhead_ms == pytest.approx(ours * 1000), "the log says the same"


def test_the_upload_of_a_request_is_not_our_own_time() -> None:
    counting = Counting(priced_at(URL))
    began_s = counting.clock.now
    counting.clock.now += 9  # a slow client
    exchange = counting.exchange(MODEL)
    counting.begin(exchange)
    counting.attempt(exchange)

    counting.end(exchange, began_s=began_s)

    assert counting.cells("llmproxy_overhead_seconds")[-1] == pytest.approx(0.0)
    assert counting.cells("llmproxy_request_duration_seconds", model=MODEL)[-1] == pytest.approx(9.3)


def test_a_streams_tokens_come_at_their_mean_rate() -> None:
    counting = Counting(priced_at(URL))

    counting.one(MODEL, stream=True, seconds=5.1, first_byte_s=0.2)

    # 50 tokens: 49 gaps in 4.9 s.
    assert counting.cells("llmproxy_time_per_output_token_seconds", model=MODEL)[-1] == pytest.approx(0.1)
    assert counting.cells("llmproxy_time_to_first_token_seconds", model=MODEL)[-1] == pytest.approx(0.2)


def test_another_gateway_goes_on_with_the_series_and_adds_its_own() -> None:
    first = Counting(priced_at(URL))
    first.one(MODEL)
    old = first.exchange(MODEL)
    first.begin(old)

    second = Counting(openai_at(URL, models=["new"]), first.metering)
    second.one("new")
    first.end(old)  # which had begun before

    assert second.value("llmproxy_requests_total", model=MODEL, status="200") == 2
    assert second.value("llmproxy_requests_total", model="new", status="200") == 1
    assert second.value("llmproxy_active_requests", model=MODEL) == 0


def test_a_request_of_which_no_model_can_be_read_is_others() -> None:
    counting = Counting(priced_at(URL))
    exchange = counting.exchange(MODEL)
    exchange.request = Request(
        operation=exchange.request.operation, dialect=exchange.request.dialect, api=exchange.request.api, body=b"{"
    )

    counting.begin(exchange)
    counting.end(exchange, status=400)

    assert counting.value("llmproxy_requests_total", model="other", status="400") == 1
