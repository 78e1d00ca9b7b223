"""A day of a configuration, with fake providers that fail."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.plugins import Registry
from llmproxy_server.rehearsal.rehearsal import Rehearsed, rehearse
from llmproxy_server.rehearsal.report import as_json
from llmproxy_server.rehearsal.script import Fault
from llmproxy_server.rehearsal.stand_in import load
from llmproxy_server.rehearsal.tally import By, PhaseTally, RouteTally
from llmproxy_server.source import Snapshot

KEY = "sk-0123456789abcdef"
ALONE = """
[llm.openai]
provider = "openai"
base_url = "https://api.openai.com/v1"
token_env = "OPENAI_API_KEY"
timeouts = { first_byte_s = 30.0, idle_s = 10.0 }

[[route]]
path_prefix = "/v1"
target_llm = "openai"
dialect = "openai"
"""
GROUP = """
[llm.openai]
provider = "openai"
base_url = "https://api.openai.com/v1"
token_env = ["KEY_1", "KEY_2"]
timeouts = { first_byte_s = 30.0, idle_s = 10.0 }

[llm.claude]
provider = "anthropic"
base_url = "https://api.anthropic.com"
token_env = "KEY_3"
models = { "gpt-4o" = "claude-sonnet-4-5" }

[llm.smart]
provider = "fallback"
members = ["openai", "claude"]
models = ["gpt-4o"]
retries = { max_retries = 3, initial_backoff_s = 0.5 }

[[route]]
path_prefix = "/v1"
target_llm = "smart"
deadline_s = 50.0
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def played(text: str, registry: Registry, *, calls: int = 8, env: Mapping[str, str] | None = None) -> Rehearsed:
    loaded = load(Snapshot(Path("config.toml"), text, env or {}, {}), registry)
    return rehearse(loaded.config, registry, calls=calls, fast=True)


@attrs.frozen
class Day:
    """A rehearsal, to be asked for its parts."""

    rehearsed: Rehearsed

    def phase(self, fault: Fault) -> PhaseTally:
        """The one in which the first provider has *fault* alone."""
        return next(it for it in self.rehearsed.alone if it.phase.fault is fault)

    def route(self, fault: Fault) -> RouteTally:
        return self.phase(fault).routes[0]


@pytest.fixture(scope="module")
def alone(registry: Registry) -> Day:
    return Day(played(ALONE, registry))


@pytest.fixture(scope="module")
def group(registry: Registry) -> Day:
    return Day(played(GROUP, registry))


# -- what clients see ------------------------------------------------------------------------------------------------


def test_all_calls_are_answered_when_all_is_well(group: Day) -> None:
    well, recovered = group.rehearsed.phases[0], group.rehearsed.phases[-1]

    assert (well.answered, well.calls) == (8, 8)
    assert dict(well.asked) == {"api.openai.com": 8, "api.anthropic.com": 0}
    assert (recovered.phase.name, recovered.answered) == ("recovery: all is well again", 8)


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.REFUSES])
def test_another_llm_answers_while_a_provider_is_gone(group: Day, fault: Fault) -> None:
    tally = group.route(fault)

    assert (tally.answered, tally.stood_in) == (8, 8)
    assert group.phase(fault).asked["api.anthropic.com"] == 8


def test_another_key_answers_while_one_is_refused(group: Day) -> None:
    tally = group.route(Fault.KEY)

    assert (tally.answered, tally.stood_in) == (8, 0)
    assert tally.tries["openai"] == 9  # the first call tried both keys; then the one that was refused rested


def test_a_stream_that_breaks_behind_its_first_token_is_told_as_broken(group: Day) -> None:
    tally = group.route(Fault.CUTS)

    assert set(tally.errors) == {"broken off: upstream_cut"}
    assert tally.answered + sum(tally.errors.values()) == 8
    assert "broken_streams" in {it.kind for it in group.rehearsed.advice}


def test_nobody_answers_when_everything_is_down(group: Day) -> None:
    outage = group.rehearsed.phases[-2]

    assert (outage.phase.of_all, outage.answered) == (True, 0)
    assert outage.phase.provider is None


def test_what_was_used_is_priced_by_the_providers_own_list(group: Day) -> None:
    tally = group.rehearsed.phases[0].routes[0]

    assert tally.cost
    assert tally.unpriced == 0
    assert tally.tokens[1] > 8


# -- what is missing -------------------------------------------------------------------------------------------------


def test_a_route_that_nobody_stands_in_for_is_named_with_its_failures(alone: Day) -> None:
    advice = {it.kind: it for it in alone.rehearsed.advice}

    assert alone.route(Fault.DOWN).answered == 0
    assert advice["no_stand_in"].message == (
        "nothing stands in for api.openai.com: 8 of 8 calls failed when it was down"
    )
    assert advice["no_stand_in"].route == "/v1"
    assert "no_retries" in advice


def test_a_group_with_keys_and_a_deadline_is_not_told_to_get_them(group: Day) -> None:
    kinds = {it.kind for it in group.rehearsed.advice}

    assert not kinds & {"no_stand_in", "no_retries", "no_deadline", "no_time", "fails_when_well"}


def test_a_deadline_that_leaves_no_time_for_another_try_is_named(registry: Registry) -> None:
    rehearsed = played(GROUP.replace("deadline_s = 50.0", "deadline_s = 25.0"), registry, calls=4)

    (found,) = [it for it in rehearsed.advice if it.kind == "no_time"]
    assert "504 deadline_exceeded" in found.message


def test_a_route_that_fails_though_all_is_well_is_named(registry: Registry) -> None:
    limit = '\n[processor.limit]\ntype = "cost_limit"\nper_request_usd = "0.000001"\n'
    text = ALONE.replace('dialect = "openai"', 'dialect = "openai"\noperations = ["chat"]\nprocessors = ["limit"]')

    rehearsed = played(text + limit, registry, calls=2)

    assert [it.kind for it in rehearsed.advice] == ["fails_when_well"]
    assert len(rehearsed.phases) == 1  # no provider was called, so none can fail


def test_a_refusal_that_no_provider_caused_is_no_matter_of_standing_in(registry: Registry) -> None:
    limit = '\n[processor.limit]\ntype = "cost_limit"\ntotal_usd = "0.01"\n'
    text = ALONE.replace('dialect = "openai"', 'dialect = "openai"\noperations = ["chat"]\nprocessors = ["limit"]')

    rehearsed = played(text + limit, registry, calls=8)

    down = next(it for it in rehearsed.alone if it.phase.fault is Fault.SLOW).routes[0]
    (refused,) = down.errors
    assert (refused, len(down.failed_by(By.OURS))) == ("402 budget_exceeded", down.failed)
    told = {it.kind: it.message for it in rehearsed.advice}
    assert "budget_exceeded" in told.pop("fails_when_well")
    assert [message for message in told.values() if "budget_exceeded" in message] == []


def test_calls_that_an_own_bound_refuses_are_told_with_their_code_and_as_that(registry: Registry) -> None:
    text = "[server]\nmax_in_flight = 1\nmax_queued = 0\n" + ALONE.replace('dialect = "openai"', "")

    rehearsed = played(text, registry, calls=8)

    silent = next(it for it in rehearsed.alone if it.phase.fault is Fault.SILENT).routes[0]
    bound = silent.failed_by(By.BOUND)
    assert len(bound) >= 6
    assert {it.code for it in bound} == {"overloaded"}
    advice = {it.kind: it for it in rehearsed.advice}
    assert (advice["at_bound"].calls, advice["at_bound"].route) == (len(bound), "/v1")
    assert "`max_in_flight`" in advice["at_bound"].message
    assert "overloaded" not in advice["no_time"].message
    assert as_json(rehearsed)["advice"]


def test_calls_of_processors_are_calls_that_a_provider_can_fail(registry: Registry) -> None:
    """The budget refuses each call, but only once the processor before it has asked a model."""
    chain = """
[processor.better]
type = "enhance_query"

[processor.limit]
type = "cost_limit"
total_usd = "0.000001"
"""
    text = ALONE.replace('dialect = "openai"', 'operations = ["chat"]\nprocessors = ["better", "limit"]')

    rehearsed = played(text + chain, registry, calls=2)

    well = rehearsed.phases[0].routes[0]
    assert (well.tries, well.by_processors) == ({}, {"openai": 2})
    assert [it.route for it in rehearsed.tested] == ["/v1"] * len(Fault)
    assert rehearsed.share == 0


def test_a_rehearsal_needs_no_certificate(registry: Registry) -> None:
    text = '[server]\ntls_certificate = "nowhere.pem"\ntls_key = "nowhere.key"\n' + ALONE

    assert played(text, registry, calls=1).phases[0].answered == 1


def test_an_upstream_that_is_silent_costs_as_much_time_as_its_clock_allows(alone: Day) -> None:
    tally = alone.route(Fault.SILENT)

    assert tally.answered == 0
    assert tally.worst_s == pytest.approx(30.0, abs=0.1)
    assert "504 upstream_timeout_first_byte" in tally.errors


def test_the_verdict_counts_the_calls_that_a_failing_provider_concerns(registry: Registry) -> None:
    other = '\n[llm.own]\nprovider = "demo"\ndelay_ms = 0\n[[route]]\npath_prefix = "/own"\ntarget_llm = "own"\n'

    rehearsed = played(ALONE + other, registry, calls=2)

    assert {it.route for it in rehearsed.tested} == {"/v1"}
    assert len(rehearsed.tested) == len(rehearsed.alone) == len(Fault)


def test_a_route_that_serves_no_chat_is_left_out(registry: Registry) -> None:
    rehearsed = played(ALONE + 'operations = ["models"]\n', registry, calls=2)

    assert (list(rehearsed.unasked), rehearsed.share) == (["/v1"], None)
    assert len(rehearsed.phases) == 1


# -- what it guarantees ----------------------------------------------------------------------------------------------


def test_the_same_day_is_played_twice(registry: Registry, group: Day) -> None:
    again = played(GROUP, registry)

    assert as_json(again) == as_json(group.rehearsed)


@pytest.fixture(scope="module")
def addresses() -> list[Any]:
    """Whom sockets of this process connect to. An audit hook cannot be removed: it is added once."""
    seen: list[Any] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            seen.append(arguments[1])

    sys.addaudithook(hook)
    return seen


def test_nothing_leaves_the_machine_whatever_way_is_configured(registry: Registry, addresses: list[Any]) -> None:
    ways = """
[llm.behind]
provider = "openai"
base_url = "https://llm.example.com/v1"
proxy = { env = "THE_PROXY" }
transport = "aiohttp"

[llm.socket]
provider = "ollama"
base_url = "http://localhost"
unix_socket = "/run/nobody.sock"

[[route]]
path_prefix = "/behind"
target_llm = "behind"

[[route]]
path_prefix = "/socket"
target_llm = "socket"
"""
    addresses.clear()

    rehearsed = played(ways, registry, calls=2, env={"THE_PROXY": "http://me:secret@192.0.2.1:3128"})

    assert rehearsed.phases[0].answered == 4
    assert {name for name, asked in rehearsed.phases[0].asked.items() if asked} == {
        "llm.example.com",
        "/run/nobody.sock",
    }
    assert addresses
    assert {address[0] for address in addresses} == {"127.0.0.1"}


def test_keys_of_llms_are_stand_ins_set_or_not(registry: Registry) -> None:
    text = GROUP.replace('token_env = "KEY_3"', 'token_env = "KEY_3"\nheaders = { x-team = { env = "TEAM" } }')

    loaded = load(Snapshot(Path("config.toml"), text, {"KEY_1": KEY, "TEAM": KEY}, {}), registry)

    llms = [llm for llm in loaded.config.llms.values() if isinstance(llm, HttpLLMConfig)]
    revealed = {key.name: key.token.reveal() for llm in llms for key in llm.keys}
    assert revealed == {"KEY_1": "stand-in-for-KEY_1", "KEY_2": "stand-in-for-KEY_2"}
    (header,) = [value for llm in llms for _, value in llm.headers]
    assert not isinstance(header, str)
    assert header.reveal() == "stand-in-for-TEAM"
