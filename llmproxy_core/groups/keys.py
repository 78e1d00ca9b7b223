"""Several keys of one LLM."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.groups.explained import explain, tells_more
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.response import Response

_NEXT = frozenset({Failure.RATE_LIMIT, Failure.AUTH, Failure.UNAVAILABLE})

_OF_ALL_KEYS = frozenset({"llm_full", "llm_drained"})
"""Why none of its keys can be used now: they have their places in common."""


class Keys:
    """
    Takes its keys in turn, each call beginning with another; where one is refused or limited the next is used at once.

    A failure of the provider itself is none that another key would help.
    """

    def __init__(self, keys: Sequence[Guarded]) -> None:
        self._keys = keys
        self._turn = 0

    @property
    def inside(self) -> Sequence[LLMClient]:
        """What it is made around."""
        return self._keys

    @property
    def models(self) -> ModelMap:
        return self._keys[0].models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return await self._keys[0].prices(model)

    async def aclose(self) -> None:
        for key in self._keys:
            await key.aclose()

    async def send(self, exchange: Exchange) -> Response:
        keys, tries = self._keys, exchange.tries
        first = self._turn
        self._turn = (first + 1) % len(keys)
        told: ProxyError | None = None
        for index in range(first, first + len(keys)):
            if told is not None and failure_of(told).was_asked and tries is not None and not tries.take():
                break
            try:
                return await keys[index % len(keys)].send(exchange)
            except ProxyError as error:
                failure = failure_of(error)
                if failure not in _NEXT or error.code in _OF_ALL_KEYS:
                    raise
                explain(exchange, f"{failure.value}: next key")
                told = tells_more(error, told)
        assert told is not None
        try:
            raise told
        finally:
            del told  # nor its own traceback
