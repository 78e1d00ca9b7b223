"""
The proxy with every provider behind it, in a thread of its own, so that clients of any kind may block.

Each provider has a route of its name: `/anthropic` is what a client takes for Anthropic's API. Clients that do not say
what they speak have others, whose configuration says it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral

from tests.clients.cast import PROVIDERS, SHARING, Role, told_route
from tests.providers.server import FakeProvider
from tests.proxy import Proxy

START_S = 30.0
DROPPING = "-dropping"
"""The end of the routes that leave out what their provider cannot be told."""

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)


class Stage:
    """All fakes, and the proxy before them; entered, it is ready."""

    def __init__(self) -> None:
        self.fakes: Mapping[str, FakeProvider] = {name: each.fake() for name, each in PROVIDERS.items()}
        self._url = ""
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stage")

    def url(self, provider: str, role: Role) -> str:
        """Where a client of *role* finds *provider* behind the proxy; no version in the path."""
        return f"{self._url}/{role.route(PROVIDERS[provider])}"

    def agents_url(self, provider: str, *, drops: bool) -> str:
        """Where a coding agent finds *provider*."""
        return f"{self._url}/{provider}{DROPPING if drops else ''}"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again where the stage is entered
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        async with AsyncExitStack() as entered:
            for fake in self.fakes.values():
                await entered.enter_async_context(fake)
            proxy = await entered.enter_async_context(Proxy(self._mapping(), plugins=PLUGINS, env=self._keys()))
            self._url = proxy.url
            self._ready.set()
            await self._end.wait()

    def _mapping(self) -> dict[str, object]:
        llms = {
            name: {**PROVIDERS[name].llm, "base_url": self.fakes[name].base_url, "token_env": _variable(name)}
            for name in PROVIDERS
        }
        routes: list[dict[str, object]] = [{"path_prefix": f"/{name}", "target_llm": name} for name in PROVIDERS]
        routes += [
            {"path_prefix": f"/{told_route(name, dialect)}", "target_llm": name, "dialect": dialect}
            for name in PROVIDERS
            for dialect in SHARING
        ]
        routes += [
            {"path_prefix": f"/{name}{DROPPING}", "target_llm": name, "on_unsupported": "drop"} for name in PROVIDERS
        ]
        return {"llm": llms, "route": routes}

    def _keys(self) -> dict[str, str]:
        return {_variable(name): fake.key for name, fake in self.fakes.items()}

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_S), "the proxy did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(START_S)


def _variable(name: str) -> str:
    return f"KEY_{name.upper().replace('-', '_')}"
