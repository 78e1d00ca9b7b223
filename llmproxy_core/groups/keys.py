"""Several keys of one LLM."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.groups.explained import sooner, try_another
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.response import Response

_NEXT = frozenset({Failure.RATE_LIMIT, Failure.AUTH, Failure.UNAVAILABLE, Failure.SPENT})

_OF_ALL_KEYS = frozenset({"llm_full", "llm_drained", "retry_budget"})
"""Why none of its keys can be used now: they have their places, and their retries, in common."""


class Keys:
    """
    Takes its keys in turn, each call beginning with another; where one is refused or limited the next is used at once.

    Keys that were limited for nobody knows how long come last. A failure of the provider itself is none that another
    key would help.
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
        tries, told = exchange.tries, None
        failed: Failure | None = None
        was_refused = False
        for key in self._in_turn():
            if failed is not None:
                if tries is not None and not tries.any_left:
                    break
                try_another(exchange, f"{failed.value}: next key")
            try:
                return await key.send(exchange, in_place=was_refused)
            except ProxyError as error:
                failed = failure_of(error)
                if failed not in _NEXT or (failed.was_asked and exchange.operation is Operation.OPAQUE):
                    raise  # of what is opaque the body is read already
                was_refused = was_refused or failed.rests
                told = sooner(error, told)
                if error.code in _OF_ALL_KEYS:
                    break
        assert told is not None
        try:
            raise told
        finally:
            del told  # nor its own traceback

    def _in_turn(self) -> list[Guarded]:
        keys, first = self._keys, self._turn
        self._turn = (first + 1) % len(keys)
        turn = [*keys[first:], *keys[:first]]
        turn.sort(key=lambda key: key.is_in_doubt)
        return turn
