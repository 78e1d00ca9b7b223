"""A group of LLMs that stand in for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError, RouteNotFound
from llmproxy_core.exchange import Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.groups.blocked import raise_if_blocked
from llmproxy_core.groups.explained import sooner, try_another
from llmproxy_core.groups.measured import Measured
from llmproxy_core.groups.members import Members
from llmproxy_core.groups.race import Turn
from llmproxy_core.groups.resumed import resumable
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.request import Request
from llmproxy_core.resilience.failure import BY_KIND, Failure, cause_of, failure_of
from llmproxy_core.resilience.tries import Tries
from llmproxy_core.response import Response, Stream
from llmproxy_core.tasks import Tasks

_FINAL = frozenset({Failure.DEADLINE, Failure.OURS})
"""What ends it for an answer that has begun: what another says of the request may be about that."""

Order = Callable[[Exchange], Sequence[LLMClient]]
"""Which members are asked for an exchange, the first first."""


class Group:
    """
    Asks its members in an order, until one answers; each once.

    What would fail everywhere ends it: a request that no provider takes, the end of the caller's time, a bug. `Tried`
    around it begins anew.
    """

    def __init__(
        self,
        members: Members,
        order: Order,
        by_kind: Mapping[Failure, str] = FrozenMap(),
        *,
        resumes_in: Tasks | None = None,
    ) -> None:
        """
        *by_kind*: the LLM, a member or not, that is asked next after a failure of that kind. Where it was asked before,
        the caller hears what it failed with. *resumes_in*: answers that break off in the middle of their text are gone
        on with by the next member, and read in these tasks.
        """
        self._resumes_in = resumes_in
        self._members = members
        self._order = order
        self._by_kind = by_kind
        self._looks_for_blocked = Failure.CONTENT_POLICY in by_kind
        """Known beforehand: to hash a kind takes longer than all else that an answer passes here."""
        self._final = (BY_KIND - by_kind.keys()) | {Failure.CALLER, Failure.DEADLINE, Failure.OURS}
        self.gives_as_is = resumes_in is None and not self._looks_for_blocked
        """Whether the answer of its first member is its own: who awaits that spares a coroutine around it (`first`)."""

    @property
    def models(self) -> ModelMap:
        return self._members.models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return await self._members.prices(model)

    async def aclose(self) -> None:
        """Its members are LLMs of their own."""

    def send(self, exchange: Exchange) -> Coroutine[Any, Any, Response]:
        meant, left = self._asked(exchange)
        if self._resumes_in is None:
            return self._ask(exchange, meant, left)
        return self._resuming(self._resumes_in, exchange, meant, left)

    def _asked(self, exchange: Exchange) -> tuple[Request, Iterator[LLMClient]]:
        """What members are asked, and who they are. RouteNotFound: it is not served."""
        request = exchange.request
        return request if self._members.as_asked else self._meant(request), iter(self._order(exchange))

    def first(self, exchange: Exchange) -> tuple[LLMClient, Request, Iterator[LLMClient]]:
        """`send` in two steps: whom to ask first, and for what; who is left, for `others`, should that fail."""
        meant, left = self._asked(exchange)
        return next(left), meant, left

    def others(
        self, exchange: Exchange, meant: Request, left: Iterator[LLMClient], member: LLMClient, error: ProxyError
    ) -> Coroutine[Any, Any, Response]:
        """*member* has failed with *error*: what `send` does then."""
        return self._ask(exchange, meant, chain([member], left), failed_first=error)

    async def _resuming(self, tasks: Tasks, exchange: Exchange, meant: Request, left: Iterator[LLMClient]) -> Response:
        tries = exchange.tries
        response = await self._ask(exchange, meant, left)
        if not isinstance(response, Stream) or meant.operation is not Operation.CHAT:
            return response
        return resumable(response, meant, partial(self._go_on, left, tries), tasks)

    def _meant(self, request: Request) -> Request:
        """*request* for the model that the table gives for the one asked for. RouteNotFound: it is not served."""
        asked = request.model
        sent = self._members.sent(asked)
        if sent is None and asked is not None:
            raise RouteNotFound(f"No LLM here serves the model {asked[:128]!r}", code="model_not_found", param="model")
        return request if sent is None or sent == asked else request.with_model(sent)

    async def _ask(
        self,
        exchange: Exchange,
        meant: Request,
        left: Iterator[LLMClient],
        told: ProxyError | None = None,
        *,
        failed_first: ProxyError | None = None,
    ) -> Response:
        """
        Ask who is *left* for *meant*. *told*: what somebody was asked before, and failed with.

        *failed_first*: the first of them was asked already, and that is what it failed with.
        """
        request, tries, named = exchange.request, exchange.tries, self._by_kind
        failed, final = (None, self._final) if told is None else (failure_of(told), _FINAL)
        asked: tuple[LLMClient, ...] = ()
        name: str | None = None
        other: LLMClient | None = None
        try:
            while (member := next(left, None)) is not None:
                if failed is not None:
                    if (llm := _llm(member)) in asked:  # before its turn, for the kind of a failure
                        continue
                    if tries is not None and not await _may_go_on(tries):
                        break
                    if not (isinstance(member, Turn) and member.was_asked):
                        try_another(exchange, f"{failed.value}: {name if llm is other else 'the next member'}")
                exchange.request = meant
                try:
                    if failed_first is not None:
                        raise failed_first
                    response = await member.send(exchange)
                    if self._looks_for_blocked and Failure.CONTENT_POLICY in named:
                        raise_if_blocked(response)
                    return response
                except ProxyError as error:
                    failed_first, failed, kind = None, failure_of(error), cause_of(error)
                    if failed in final or (failed.was_asked and meant.operation is Operation.OPAQUE):
                        raise
                    other = None if (name := named.get(kind)) is None else self._members.llm(name)
                    if other is not None:
                        named = {it: llm for it, llm in named.items() if it is not kind}
                        left = chain([other], left)
                    more = sooner(error, told)
                    if told is None or other not in asked:  # else what that one failed with is why there is no answer
                        told = more
                    asked += (_llm(member),)
            assert told is not None
            raise told
        finally:
            exchange.request = request  # whoever tries another LLM next asks it for what the caller asked
            del told  # nor its own traceback

    async def _go_on(
        self, left: Iterator[LLMClient], tries: Tries | None, exchange: Exchange, request: Request, error: ProxyError
    ) -> Response:
        """Have who is *left* go on with the answer that *error* broke off, as one more of the same *tries*."""
        exchange.tries = tries
        if tries is not None:
            tries.failed(failure_of(error), error)
        return await self._ask(exchange, request, left, error)


def _llm(member: LLMClient) -> LLMClient:
    """The LLM itself that an order has put something around."""
    return member.llm if isinstance(member, Measured | Turn) else member


async def _may_go_on(tries: Tries) -> bool:
    """Whether another LLM may be called, after as long a pause as the last failure asks for."""
    if tries.any_left and (pause_s := tries.pause_s()):
        await asyncio.sleep(pause_s)
    return tries.any_left
