"""A group of LLMs that stand in for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError, RouteNotFound
from llmproxy_core.exchange import Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.groups.explained import explain, tells_more
from llmproxy_core.groups.members import Members
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.failure import BY_KIND, Failure, failure_of
from llmproxy_core.resilience.tries import Tries
from llmproxy_core.response import Response

Order = Callable[[Exchange], Sequence[LLMClient]]
"""Which members are asked for an exchange, the first first."""


class Group:
    """
    Asks its members in an order, until one answers; each once.

    What would fail everywhere ends it: a request that no provider takes, a bug. `Tried` around it begins anew.
    """

    def __init__(self, members: Members, order: Order, by_kind: Mapping[Failure, str] = FrozenMap()) -> None:
        """*by_kind*: the LLM, a member or not, that is asked next after a failure of that kind."""
        self._members = members
        self._order = order
        self._by_kind = by_kind
        self._final = (BY_KIND - by_kind.keys()) | {Failure.CALLER, Failure.OURS}

    @property
    def models(self) -> ModelMap:
        return self._members.models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return await self._members.prices(model)

    async def aclose(self) -> None:
        """Its members are LLMs of their own."""

    async def send(self, exchange: Exchange) -> Response:
        request, tries = exchange.request, exchange.tries
        asked = request.model
        sent = self._members.sent(asked)
        if sent is None and asked is not None:
            raise RouteNotFound(f"No LLM here serves the model {asked[:128]!r}", code="model_not_found", param="model")
        meant = request if sent is None or sent == asked else request.with_model(sent)
        told: ProxyError | None = None
        failed: Failure | None = None
        try:
            left, place, named = self._order(exchange), 0, self._by_kind
            while place < len(left):
                member = left[place]
                place += 1
                if failed is not None:
                    if failed.was_asked and tries is not None and not tries.take():
                        break
                    if tries is not None and tries.pause_s and not await _paused(tries):
                        break
                exchange.request = meant
                try:
                    return await member.send(exchange)
                except ProxyError as error:
                    failed = failure_of(error)
                    if failed in self._final or (failed.was_asked and request.operation is Operation.OPAQUE):
                        raise
                    if (name := named.get(failed)) is not None:
                        left, place = [self._members.llm(name), *left[place:]], 0
                        named = {kind: other for kind, other in named.items() if kind is not failed}
                    explain(exchange, f"{failed.value}: {name or 'the next member'}")
                    told = tells_more(error, told)
        finally:
            exchange.request = request  # whoever tries another LLM next asks it for what the caller asked
        assert told is not None
        try:
            raise told
        finally:
            del told  # nor its own traceback


async def _paused(tries: Tries) -> bool:
    """Wait as long as the last failure asks for; False when that would be too long."""
    pause_s, tries.pause_s = tries.pause_s, 0.0
    if not tries.fits(pause_s):
        return False
    await asyncio.sleep(pause_s)
    return True
