"""An LLM whose failures are tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.groups.explained import tells_more, try_another
from llmproxy_core.groups.group import Group
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.outcome import Outcome
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.commit import FIRST_TOKEN, Commit
from llmproxy_core.resilience.failure import BY_KIND, Failure, failure_of
from llmproxy_core.resilience.tries import Tries
from llmproxy_core.response import Response
from llmproxy_core.services import Services

_OPAQUE = Operation.OPAQUE
_FINAL = BY_KIND | {Failure.CALLER, Failure.DEADLINE, Failure.OURS}
"""What ends it, whatever failed before. (Of the kinds that a table names: the group has asked whom it names.)"""


class Tried:
    """
    Sends an exchange until it is answered, or nothing is left that could help.

    Around one LLM, or around a group, which goes through its members each time. Where several are around each other
    the outermost decides: what is inside goes through what it has once.
    """

    def __init__(
        self,
        llm: LLMClient,
        retries: Retries | None,
        services: Services,
        commit: Commit = FIRST_TOKEN,
    ) -> None:
        """*retries*: None for an LLM that is only to go through what it has, its keys, and nothing of it twice."""
        self._llm = llm
        self._again = retries is not None
        self._group = llm if isinstance(llm, Group) and llm.gives_as_is else None
        self._commit = commit
        self._retries = Retries() if retries is None else retries
        self._clock, self._chance = services.clock, services.random

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
        if exchange.tries is not None or exchange.operation is _OPAQUE:  # whose body can be read but once
            return await self._llm.send(exchange)
        retries = self._retries
        tries = exchange.tries = Tries(
            retries, exchange.until_s, self._clock, self._chance, retries.max_retries, self._commit
        )
        group, request, told = self._group, exchange.request, None
        try:
            while True:
                try:
                    if group is None:
                        response = await self._llm.send(exchange)
                    else:  # whose first member is awaited here: a coroutine of its own is dear, and most answer
                        member, meant, left = group.first(exchange)
                        exchange.request, answered, others = meant, None, None
                        try:
                            answered = await member.send(exchange)
                        except ProxyError as failed:
                            others = group.others(exchange, meant, left, member, failed)
                        exchange.request = request
                        if others is not None:
                            answered = await others
                        assert answered is not None
                        response = answered
                    if tries.left < retries.max_retries:
                        response.on_finish(partial(_last_word, tries))
                    return response
                except ProxyError as error:
                    failure = failure_of(error)
                    told = tells_more(error, None if failure in _FINAL else told)
                wait_s = tries.again_s() if self._again and failure not in _FINAL else None
                if wait_s is None or not tries.any_left:
                    raise tries.last_word(told)
                try_another(exchange, f"{failure.value}: again after {wait_s:.3f} s")
                exchange.request = request
                await asyncio.sleep(wait_s)
                if not tries.any_left:  # who asked has left meanwhile
                    raise tries.last_word(told)
        finally:
            exchange.request = request
            exchange.tries = told = None  # a processor that sends the exchange once more has tries of its own


def _last_word(tries: Tries, outcome: Outcome) -> None:
    """
    An answer is over that came after a failure.

    Where it fails, that may still be told by a status of its own: it has begun, and nobody has got anything of it yet.
    """
    if outcome.error is not None:
        tries.failed(failure_of(outcome.error), outcome.error)
        tries.last_word(outcome.error)
