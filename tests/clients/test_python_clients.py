"""The official Python clients, unmodified: each with each provider behind the proxy, and with its own directly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.cast import PROVIDERS, PYTHON_CLIENTS, differences, expected
from tests.clients.play import Client, play
from tests.clients.python_anthropic import Messages
from tests.clients.python_gemini import GenerateContent
from tests.clients.python_mistral import Chat
from tests.clients.python_openai import ChatCompletions, Responses
from tests.clients.stage import Stage
from tests.providers.server import CALLERS_KEY

# google-genai uses aiohttp where it is installed, against the advice of aiohttp.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

CLIENTS: dict[str, type[Client]] = {
    client.name: client for client in (ChatCompletions, Responses, Messages, GenerateContent, Chat)
}
DIRECT = [(name, scenario) for name, role in PYTHON_CLIENTS.items() for scenario in role.scenarios]
BEHIND = [
    (name, provider, scenario)
    for name, role in PYTHON_CLIENTS.items()
    for provider in PROVIDERS
    for scenario in role.scenarios
]


def test_the_versions_of_the_clients_are_said(record_property: Callable[[str, object], None]) -> None:
    assert CLIENTS.keys() == PYTHON_CLIENTS.keys()

    for client in CLIENTS.values():
        record_property("version", client.version())


@pytest.mark.parametrize(("client", "scenario"), DIRECT)
async def test_a_client_gets_on_with_the_fake_of_its_own_provider(client: str, scenario: str, stage: Stage) -> None:
    """What holds for the fakes themselves: they speak the protocol as the official client knows it."""
    role = PYTHON_CLIENTS[client]
    fake, provider = stage.fakes[role.own], PROVIDERS[role.own]

    async with CLIENTS[client](fake.url, fake.key) as sdk:
        seen = await play(sdk, scenario, provider.models)

    assert not differences(seen, expected(role, provider, scenario, direct=True)), seen


@pytest.mark.parametrize(("client", "provider", "scenario"), BEHIND)
async def test_a_client_gets_on_with_every_provider(client: str, provider: str, scenario: str, stage: Stage) -> None:
    role, behind = PYTHON_CLIENTS[client], PROVIDERS[provider]

    async with CLIENTS[client](stage.url(provider, role), CALLERS_KEY) as sdk:
        seen = await play(sdk, scenario, behind.models)

    assert not differences(seen, expected(role, behind, scenario)), seen


@pytest.mark.parametrize(
    ("client", "provider"), [(name, each) for name in CLIENTS for each, behind in PROVIDERS.items() if behind.mark]
)
async def test_a_thought_comes_back_to_the_provider_that_had_it(client: str, provider: str, stage: Stage) -> None:
    behind, fake = PROVIDERS[provider], stage.fakes[provider]
    assert behind.mark is not None

    async with CLIENTS[client](stage.url(provider, PYTHON_CLIENTS[client]), CALLERS_KEY) as sdk:
        await play(sdk, "thinking_tools", behind.models)

    is_back = behind.mark in fake.requests[-1].body.decode()
    assert is_back is (provider not in PYTHON_CLIENTS[client].forgets)
