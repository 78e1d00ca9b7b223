"""The official clients of npm, unmodified: each with each provider behind the proxy, and with its own directly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.clients.cast import NODE_CLIENTS, PROVIDERS, differences, expected
from tests.clients.npm import DIRECTLY, Played, need_node, play_all
from tests.clients.stage import Stage

CELLS = [
    pytest.param(name, provider, scenario, marks=pytest.mark.xdist_group(name))
    for name, role in NODE_CLIENTS.items()
    for provider in (DIRECTLY, *PROVIDERS)
    for scenario in role.scenarios
]
Play = Callable[[str], Played]


@pytest.fixture(scope="session")
def played(stage: Stage) -> Play:
    """What a client saw, whose process runs once; an error of the process is every test's that asks."""
    known: dict[str, Played] = {}

    def of(client: str) -> Played:
        need_node()
        if client not in known:
            known[client] = asyncio.run(play_all(client, NODE_CLIENTS[client], stage))
        return known[client]

    return of


@pytest.mark.parametrize("client", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NODE_CLIENTS])
def test_a_client_says_its_version_and_leaves_no_promise_unhandled(
    client: str, played: Play, record_property: Callable[[str, object], None]
) -> None:
    seen = played(client)

    record_property("version", seen.versions)
    assert seen.versions
    assert not seen.unhandled


@pytest.mark.parametrize(("client", "provider", "scenario"), CELLS)
def test_a_client_gets_on_with_every_provider(client: str, provider: str, scenario: str, played: Play) -> None:
    role = NODE_CLIENTS[client]
    is_direct = provider == DIRECTLY
    behind = PROVIDERS[role.own if is_direct else provider]

    seen = played(client).seen[provider, scenario]

    assert not differences(seen, expected(role, behind, scenario, direct=is_direct)), seen


@pytest.mark.parametrize(
    "client",
    [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NODE_CLIENTS],
)
def test_a_thought_comes_back_to_the_provider_that_had_it(client: str, played: Play) -> None:
    thinkers = {name for name, provider in PROVIDERS.items() if provider.mark}

    assert played(client).returned == thinkers - NODE_CLIENTS[client].forgets
