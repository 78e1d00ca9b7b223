"""An LLM whose failures are tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.groups.explained import explain, tells_more
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.commit import FIRST_TOKEN, Commit
from llmproxy_core.resilience.failure import failure_of
from llmproxy_core.resilience.tries import Tries
from llmproxy_core.response import Response
from llmproxy_core.services import Services


class Tried:
    """
    Sends an exchange until it is answered, or nothing is left that could help.

    Around one LLM, or around a group, which goes through its members each time. Where several are around each other
    the outermost decides: what is inside goes through what it has once.
    """

    def __init__(self, llm: LLMClient, retries: Retries, services: Services, commit: Commit = FIRST_TOKEN) -> None:
        self._llm = llm
        self._commit = commit
        self._retries = retries
        self._services = services

    @property
    def inside(self) -> Sequence[LLMClient]:
        """What it is made around."""
        return (self._llm,)

    @property
    def models(self) -> ModelMap:
        return self._llm.models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return await self._llm.prices(model)

    async def aclose(self) -> None:
        await self._llm.aclose()

    async def send(self, exchange: Exchange) -> Response:
        if exchange.tries is not None or exchange.operation is Operation.OPAQUE:  # whose body can be read but once
            return await self._llm.send(exchange)
        services = self._services
        tries = exchange.tries = Tries(
            self._retries, exchange.deadline_s, services.clock, services.random, self._commit
        )
        request, told = exchange.request, None
        try:
            while True:
                try:
                    return await self._llm.send(exchange)
                except ProxyError as error:
                    failure, told = failure_of(error), tells_more(error, told)
                wait_s = tries.again_s()
                if wait_s is None or not tries.take():
                    raise tries.last_word(told)
                explain(exchange, f"{failure.value}: again after {wait_s:.3f} s")
                exchange.request = request
                await asyncio.sleep(wait_s)
        finally:
            exchange.tries = told = None  # a processor that sends the exchange once more has tries of its own
