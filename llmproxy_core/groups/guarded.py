"""One LLM with one key: whether it may be called, and what its answers teach."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from math import inf

from llmproxy_core.errors import ProxyError, UpstreamError, have_wait
from llmproxy_core.exchange import Exchange
from llmproxy_core.groups.explained import pass_over
from llmproxy_core.groups.places import Places, Room
from llmproxy_core.groups.rest import Rest
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.breaker import Breaker, Pass
from llmproxy_core.resilience.budget import RetryBudget
from llmproxy_core.resilience.commit import Commit
from llmproxy_core.resilience.failure import BudgetSpent, Failure, Unavailable, failure_of
from llmproxy_core.response import Response, Stream
from llmproxy_core.services import Services


class Guarded:
    """
    The LLM *llm*, of which only one key is used.

    It is not called while it or its key rests (the provider said when it may be used again), nor while its breaker is
    open; and not again for one exchange when its retry budget is used up. A stream counts as answered once it has begun
    to answer: until then its failure is one that another try, or another LLM, may hide.
    """

    def __init__(
        self,
        llm: LLMClient,
        name: str,
        services: Services,
        *,
        key: str | None = None,
        budget: RetryBudget,
        places: Places,
        room: Room,
        rest: Rest,
        key_rest: Rest | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """
        *key* is the name of the key, where there are several, and *key_rest* its own rest; *budget*, *places*, *room*
        and *rest* are the whole LLM's.
        """
        self.name = name
        self.key = key
        self._llm = llm
        self._clock = services.clock
        self._budget = budget
        self.places = places
        self.room = room
        self.breaker = breaker
        self._rest = rest
        self._key_rest = rest if key_rest is None else key_rest

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

    async def send(self, exchange: Exchange, *, in_place: bool = False) -> Response:
        """*in_place* of another key of the LLM, which was asked for the same, and refused."""
        attempts = len(exchange.attempts)
        places = self.places
        if places.room is not self.room:
            places.follow(self.room)
        if (no_place := places.enter()) is not None:
            no_place = await places.turn(exchange.address, self._left_s(exchange))
        began_s = self._clock()
        passed = self._admit(exchange, no_place, in_place, began_s)
        try:
            response = await self._llm.send(exchange)
            stream = response if isinstance(response, Stream) else None
            if stream is not None and exchange.tries is not None:
                await _committed(stream, exchange.tries.commit)
        except ProxyError as error:
            self._failed(exchange, error, passed, began_s, attempts)
            raise
        except BaseException:
            if passed is not None:
                passed.dropped()
            places.leave()
            raise
        finally:
            if self.key is not None:
                for attempt in exchange.attempts[attempts:]:
                    attempt.key = self.key
        if self._key_rest.has_been:
            self._key_rest.answered()
        if stream is not None:
            stream.on_finish(partial(self._ended, passed, began_s, stream.begun_s))
            return response
        # It has been read whole, and said something: what becomes of it now is not the LLM's doing.
        places.leave()
        if passed is not None:
            passed.succeeded(self._clock() - began_s)
        return response

    def _failed(
        self, exchange: Exchange, error: ProxyError, passed: Pass | None, began_s: float, attempts: int
    ) -> None:
        """The call gave no answer; there were so many *attempts* before it."""
        self.places.leave()
        failure = failure_of(error)
        if passed is not None:
            _end(passed, failure, self._clock() - began_s)
        self._note_rest(failure, error)
        if len(exchange.attempts) == attempts:
            pass_over(exchange, self.name, self.key, error)
        if exchange.tries is not None:
            exchange.tries.failed(failure, error)

    def _left_s(self, exchange: Exchange) -> float:
        return inf if exchange.deadline_s is None else exchange.deadline_s - self._clock()

    def _admit(self, exchange: Exchange, no_place: Unavailable | None, in_place: bool, now: float) -> Pass | None:
        """
        The breaker's pass, where there is one; Unavailable where the LLM is not to be called now.

        *no_place*: why it has no place for the call. Where it has one, that is given back with the refusal.
        """
        tries, breaker, passed, refusal = exchange.tries, self.breaker, None, no_place
        if refusal is None and (self._rest.has_been or self._key_rest.has_been):
            refusal = self._rest.refusal() or self._key_rest.refusal()
        if refusal is None and breaker is not None:
            passed = breaker.admit()
            if passed is None:
                wait_s = breaker.retry_in_s()
                refusal = Unavailable(f"The LLM '{self.name}' is failing, and is not called now", retry_after_s=wait_s)
        if refusal is None and tries is not None:
            if self.name not in tries.reached:
                tries.reached += (self.name,)
                self._budget.called(now)
            elif not (in_place and not self.is_in_doubt) and not self._budget.take():
                refusal = BudgetSpent(f"The LLM '{self.name}' has had its share of retries")
                if passed is not None:
                    passed.dropped()
        if refusal is None:
            return passed
        if no_place is None:
            self.places.leave()
        pass_over(exchange, self.name, self.key, refusal)
        if tries is not None:
            tries.failed(failure_of(refusal), refusal)
        raise refusal

    def rests_s(self) -> float:
        """Seconds until its key may be used again; 0.0 when it may."""
        return max(self._rest.left_s, self._key_rest.left_s)

    def restore(self) -> None:
        """Let it be called again, whatever its provider has said of when."""
        self._rest.end()
        self._key_rest.end()

    @property
    def is_in_doubt(self) -> bool:
        """Whether other keys are to be used first: this one was limited, for nobody knows how long."""
        return self._key_rest.is_in_doubt

    def _ended(self, passed: Pass | None, began_s: float, begun_s: float | None, outcome: Outcome) -> None:
        """The stream has ended. *begun_s*: when its first token was there, where that was waited for."""
        self.places.leave()
        if passed is None:
            return
        error = outcome.error
        seconds = (begun_s or outcome.first_byte_s or outcome.ended_s) - began_s
        if outcome.end is End.COMPLETED:
            passed.succeeded(seconds)
        elif isinstance(error, UpstreamError) and failure_of(error).is_upstreams:
            passed.failed(seconds)
        else:
            passed.dropped()

    def _note_rest(self, failure: Failure, error: ProxyError) -> None:
        """Have the key rest that was refused, or all where the provider asks for it; *error* tells the longer time."""
        if failure.rests:
            self._key_rest.begin(failure, error)
        elif failure is Failure.UPSTREAM and error.retry_after_s is not None:
            self._rest.begin(failure, error)
        if failure.may_pass and failure.was_asked and (wait_s := self.rests_s()) > (error.retry_after_s or 0.0):
            have_wait(error, wait_s)


async def _committed(stream: Stream, commit: Commit) -> None:
    """Return once as much of *stream* is there as *commit* says, or that took too long."""
    if commit.chars is None:
        return
    if commit.most_s is None:
        await stream.started(commit.chars)
        return
    limit = asyncio.timeout(commit.most_s)
    try:
        async with limit:
            await stream.started(commit.chars)
    except TimeoutError:
        if not limit.expired():
            raise


def _end(passed: Pass, failure: Failure, seconds: float) -> None:
    if failure.is_upstreams:
        passed.failed(seconds)
    elif failure is Failure.DEADLINE:
        passed.cut_short(seconds)
    else:
        passed.dropped()
