"""`/providers` of several workers: one answer of all of theirs."""

from __future__ import annotations

from typing import Any

import msgspec

from llmproxy_core.endpoint import EndpointReply
from llmproxy_server.providers_merge import merge_drained, merge_providers, refusal

SILENT = EndpointReply(b"", status=503)
CLOSED = {
    "state": "closed",
    "calls": 30,
    "failure_rate": 0.1,
    "slow_rate": 0.0,
    "opened": 0,
    "retry_in_s": 0.0,
}
OPEN = {"state": "open", "calls": 10, "failure_rate": 0.9, "slow_rate": 0.4, "opened": 2, "retry_in_s": 4.0}


def worker(state: str = "ok", *, breaker: dict[str, object] | None = None, **more: object) -> EndpointReply:
    key = {"state": "open" if state == "open" else "ok", "rests_s": 0.0, "breaker": breaker or CLOSED}
    llm = {"provider": "openai", "enabled": True, "state": state, "tried_age_s": 5.0}
    llm |= {"drained": state == "drained", "in_flight": 1, "max_in_flight": 4, "keys": [key], **more}
    return reply({"llms": {"a": llm}})


def reply(said: object) -> EndpointReply:
    return EndpointReply(msgspec.json.encode(said))


def merged(*replies: EndpointReply) -> dict[str, Any]:
    return msgspec.json.decode(merge_providers(replies).body, type=dict[str, Any])


def test_calls_are_summed_and_who_is_missing_is_named() -> None:
    said = merged(worker(), SILENT, worker(in_flight=2, max_in_flight=4))

    assert (said["llms"]["a"]["in_flight"], said["llms"]["a"]["max_in_flight"]) == (3, 8)
    assert said["workers"] == {"expected": 3, "answering": 2, "missing": [2]}
    assert "worker" not in said["llms"]["a"]


def test_what_was_tried_last_counts_while_all_call_the_llm() -> None:
    said = merged(worker("failing", tried_age_s=9.0), worker("ok", tried_age_s=2.0))

    assert said["llms"]["a"]["state"] == "ok"


def test_one_worker_that_does_not_call_it_is_told_of() -> None:
    said = merged(worker("ok", tried_age_s=0.1), worker("open", breaker=OPEN))

    (key,) = said["llms"]["a"]["keys"]
    assert (said["llms"]["a"]["state"], key["state"]) == ("open", "open")
    assert key["breaker"] == {
        "state": "open",
        "calls": 40,
        "failure_rate": 0.3,  # (30 * 0.1 + 10 * 0.9) / 40
        "slow_rate": 0.1,
        "opened": 2,
        "retry_in_s": 4.0,
    }


def test_an_llm_that_only_some_have_out_of_service_says_in_which() -> None:
    some, all_ = merged(worker(), worker("drained")), merged(worker("drained"), worker("drained"))

    assert (some["llms"]["a"]["drained"], some["llms"]["a"]["drained_in"]) == (True, [2])
    assert (all_["llms"]["a"]["drained"], "drained_in" in all_["llms"]["a"]) == (True, False)


def test_workers_that_do_not_serve_the_same_yet_are_one_answer_all_the_same() -> None:
    group = reply({"llms": {"a": {"provider": "fallback", "enabled": True, "state": "ok", "members": ["b"]}}})

    assert merged(group, worker(tried_age_s=0.1))["llms"]["a"]["in_flight"] == 1
    assert merged(worker(), group)["llms"]["a"]["state"] == "ok"


def test_nobody_that_answers_is_an_answer() -> None:
    assert merged(SILENT) == {"llms": {}, "workers": {"expected": 1, "answering": 0, "missing": [1]}}


def drained(in_flight: int) -> EndpointReply:
    return reply({"llm": "a", "drained": True, "in_flight": in_flight})


def test_what_all_have_drained_is_drained() -> None:
    found = merge_drained([drained(1), drained(2)])

    assert (found.status, msgspec.json.decode(found.body)) == (200, {"llm": "a", "drained": True, "in_flight": 3})


def test_what_one_refuses_is_refused() -> None:
    assert merge_drained([refusal(404, "llm_not_found", "No LLM"), SILENT]).status == 404


def test_nobody_knows_what_a_worker_has_done_that_gives_no_answer() -> None:
    found = merge_drained([drained(1), SILENT])

    assert (found.status, msgspec.json.decode(found.body)["error"]["code"]) == (503, "worker_missing")
    assert "1 of 2 workers" in msgspec.json.decode(found.body)["error"]["message"]
