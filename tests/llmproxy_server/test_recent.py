"""What is kept of the last calls, and how the answers of several workers become one."""

from __future__ import annotations

import gc
import json
import types
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Operation, ReplyHead
from llmproxy_core.endpoint import EndpointReply
from llmproxy_core.errors import ProxyError, RouteNotFound, UpstreamError
from llmproxy_core.exchange import Exchange
from llmproxy_core.headers import Headers
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.request import Request
from llmproxy_core.response import Reply
from llmproxy_core.tasks import Tasks
from llmproxy_core.usage import Usage
from llmproxy_openai.dialect import OpenAIDialect
from llmproxy_server.access_line import AccessLine, access_line
from llmproxy_server.door_request import Incoming
from llmproxy_server.recent import Recent
from llmproxy_server.recent_endpoint import MOST_LISTED, merge_lists, merge_ones
from llmproxy_server.record import Ended, Recorder

PATH = "/v1/chat/completions"
LONG = "x" * 5000


class Clock:
    """Seconds since the epoch; each call ends a second after the one before."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@attrs.frozen
class Asked:
    """What is recorded of a call at the edge."""

    incoming: Incoming
    request_id: str
    status: int = 200
    address: str = "127.0.0.1"
    method: str = "POST"
    path: str = PATH
    began_s: float = 10.0


def over(
    id: str = "r", *, attempts: int = 1, error: ProxyError | None = None, path: str = PATH, model: str = "m"
) -> Ended:
    """An exchange that ended: after *attempts*, those before the last failed, with *error* or whole."""
    incoming = Incoming("POST", path, path, "", (1, 1), Headers(), "127.0.0.1", secure=False)
    asked = Request(operation=Operation.CHAT, body=b"x" * 1000)
    exchange = Exchange(asked, id=id, route="/v1", tasks=Tasks(), clock=lambda: 10.0)
    for number in range(attempts):
        failed = UpstreamError("Sorry", code=LONG) if number < attempts - 1 else None
        exchange.attempts.append(Attempt("a", model, 11.0, 200, ended_s=12.0, request=asked, error=failed))
    outcome = Outcome(End.of(error), error, ended_s=20.0)
    return Ended(Asked(incoming, id), exchange, outcome, 200 if error is None else error.status, None)


def kept(recent: Recent, ended: Ended) -> None:
    recent.ended(ended, access_line(ended, 20.0))


def ids(recent: Recent, most: int = 100) -> list[str]:
    return [line.request_id for _, line in recent.newest(most)]


def test_the_last_calls_are_kept_the_newest_first() -> None:
    recent = Recent(3, Clock())
    for number in range(5):
        kept(recent, over(str(number)))

    assert ids(recent) == ["4", "3", "2"]
    assert ids(recent, 2) == ["4", "3"]
    assert recent.find("1") is None
    found = recent.find("3")
    assert found is not None
    assert (found[0], found[1].request_id) == (1_700_000_004.0, "3")


@pytest.mark.parametrize(
    "worth_telling",
    [
        over("worth", attempts=2),
        over("worth", error=RouteNotFound("nothing")),
        over("worth", error=UpstreamError("Sorry")),
    ],
    ids=["tried again", "refused", "failed"],
)
def test_calls_that_went_well_do_not_push_out_those_that_did_not(worth_telling: Ended) -> None:
    recent = Recent(2, Clock())
    kept(recent, worth_telling)
    for number in range(100):
        kept(recent, over(str(number)))

    assert ids(recent) == ["99", "98", "worth"]


def test_a_call_that_passed_over_an_llm_did_not_just_go_well() -> None:
    recent, ended = Recent(1, Clock()), over("worth")
    ended.exchange.pass_over(Attempt("b", None, 11.0))
    kept(recent, ended)
    kept(recent, over("well"))

    assert ids(recent) == ["well", "worth"]


def test_calls_that_failed_are_no_more_than_the_others() -> None:
    recent = Recent(2, Clock())
    for number in range(5):
        kept(recent, over(str(number), attempts=2))

    assert ids(recent) == ["4", "3"]


def test_of_calls_with_one_id_the_last_is_found() -> None:
    """Callers may give ids, and their libraries repeat them when they try again."""
    recent = Recent(3, Clock())
    kept(recent, over("mine"))
    kept(recent, over("mine", error=UpstreamError("Sorry")))

    found = recent.find("mine")

    assert found is not None
    assert found[1].end is End.FAILED


def test_a_call_without_a_line_in_the_log_is_kept_as_well() -> None:
    recent = Recent(3, Clock())
    recent.ended(over("quiet"), None)

    found = recent.find("quiet")

    assert found is not None
    assert found[1] == access_line(over("quiet"), 20.0)


def test_nothing_that_others_made_long_is_kept() -> None:
    recent = Recent(3, Clock())
    kept(recent, over("path", path="/v1/" + LONG))
    kept(recent, over("model", model=LONG))
    kept(recent, over("code", attempts=2))
    kept(recent, over("message", error=UpstreamError(LONG, code=LONG)))

    assert len(repr(recent.newest(9))) < len(LONG)


def test_the_line_that_the_log_has_yet_to_write_is_left_alone() -> None:
    ended = over("code", attempts=2, error=UpstreamError("Sorry"), path="/v1/" + LONG)
    line = access_line(ended, 20.0)

    Recent(3, Clock()).ended(ended, line)

    assert line == access_line(ended, 20.0)


@pytest.mark.parametrize("ended", [over(), over(attempts=2), over(error=UpstreamError("Sorry"))])
def test_the_bodies_of_a_call_are_not_kept_in_memory(ended: Ended) -> None:
    ended.exchange.pass_over(Attempt("b", None, 11.0, error=UpstreamError("no")))
    recent = Recent(3, Clock())
    recent.ended(ended, None)

    seen = set[int]()
    left: list[object] = list(recent.newest(3))
    while left:
        found = left.pop()
        if id(found) not in seen and not isinstance(found, type | types.ModuleType | types.FunctionType):
            seen.add(id(found))
            left += gc.get_referents(found)
            assert not isinstance(found, Exchange | Request | Attempt | Incoming | BaseException), found


# -- the recorder ----------------------------------------------------------------------------------------------------


class Logged:
    """A log that says something of a call, or nothing."""

    def __init__(self, line: AccessLine | None) -> None:
        self.line = line

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def ended(self, ended: Ended) -> AccessLine | None:
        return self.line


class Broken:
    """Metrics that break."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def ended(self, ended: Ended) -> None:
        raise ZeroDivisionError


class Window:
    def __init__(self) -> None:
        self.given: list[AccessLine | None] = []

    def ended(self, ended: Ended, line: AccessLine | None, *, ago_s: float = 0.0) -> None:
        self.given.append(line)


@pytest.mark.parametrize("line", [None, access_line(over(), 20.0)], ids=["no line", "a line"])
def test_the_window_gets_the_very_line_of_the_log_also_when_the_metrics_break(line: AccessLine | None) -> None:
    window, ended = Window(), over()
    recorder = Recorder(Logged(line), Broken(), None, None, window)
    recorder.begin(ended.call, ended.exchange)

    ended.exchange.finish(End.COMPLETED)

    (given,) = window.given
    assert given is line


def test_a_call_is_kept_once_all_is_over_that_it_pays_for_with_the_time_of_its_own_end() -> None:
    now = [10.0]
    asked = Asked(Incoming("POST", PATH, PATH, "", (1, 1), Headers(), "127.0.0.1", secure=False), "r")
    exchange = Exchange(
        Request(operation=Operation.CHAT, body=b""), id="r", route="/v1", tasks=Tasks(), clock=lambda: now[0]
    )
    recent = Recent(3, lambda: 1_700_000_000.0)
    Recorder(Logged(None), None, None, None, recent).begin(asked, exchange)
    flight = exchange.detach(exchange.request)
    attempt = exchange.attempt("a", "m")
    exchange.attempts.append(attempt)

    exchange.finish(End.ABANDONED)
    assert recent.newest(1) == []
    now[0] = 12.5
    reply = Reply(flight, b"{}", dialect=OpenAIDialect(), api=None, head=ReplyHead(Usage(7, 5), "m"), attempt=attempt)
    reply.finish(End.COMPLETED)
    flight.finish(End.COMPLETED)

    ((ended_s, line),) = recent.newest(1)
    assert (ended_s, line.status, line.end, line.duration_ms) == (1_699_999_997.5, 499, End.ABANDONED, 0.0)
    assert (line.input_tokens, line.output_tokens) == (7, 5)
    assert line.attempts is not None
    assert line.attempts[0].ms == 2500.0


# -- several workers -------------------------------------------------------------------------------------------------


def listed(*calls: tuple[str, str]) -> EndpointReply:
    """A worker's list of calls, each an id and its time."""
    return EndpointReply(json.dumps({"requests": [{"request_id": id, "ended_at": at} for id, at in calls]}).encode())


def one(at: str) -> EndpointReply:
    return EndpointReply(json.dumps({"request_id": "r", "ended_at": at}).encode())


SILENT = EndpointReply(b"", status=503)
UNKNOWN = EndpointReply(b"{}", status=404)


def said(reply: EndpointReply) -> Any:
    return json.loads(reply.body)


def test_the_lists_of_workers_become_one_by_time() -> None:
    replies = [listed(("c", "T3"), ("a", "T1")), listed(("d", "T4"), ("b", "T2"))]

    merged = said(merge_lists(replies))

    assert [it["request_id"] for it in merged["requests"]] == ["d", "c", "b", "a"]
    assert "missing" not in merged


def test_a_merged_list_is_no_longer_than_one() -> None:
    replies = [listed(*((f"{slot}-{number}", f"T{number:03}") for number in range(50, 0, -1))) for slot in range(4)]

    assert len(said(merge_lists(replies))["requests"]) == MOST_LISTED


def test_a_worker_that_gives_no_list_is_named() -> None:
    merged = said(merge_lists([listed(("a", "T1")), SILENT]))

    assert (len(merged["requests"]), merged["missing"]) == (1, [2])


@pytest.mark.parametrize(
    ("replies", "status"),
    [
        ([UNKNOWN, one("T1"), SILENT], 200),
        ([UNKNOWN, UNKNOWN], 404),
        ([UNKNOWN, SILENT], 503),
    ],
    ids=["one knows", "none knows", "one is silent"],
)
def test_the_worker_that_knows_a_call_answers_for_all(replies: Sequence[EndpointReply], status: int) -> None:
    assert merge_ones(replies).status == status


def test_of_workers_that_know_an_id_the_one_with_the_last_call_answers() -> None:
    assert said(merge_ones([one("T1"), one("T3"), one("T2")]))["ended_at"] == "T3"
