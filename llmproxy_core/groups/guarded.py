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
        attempts, places, tries = len(exchange.attempts), self.places, exchange.tries
        breaker, key_rest, passed = self.breaker, self._key_rest, None
        if (no_place := places.enter(self.room)) is not None:
            no_place = await places.turn(exchange.address, self._left_s(exchange))
        began_s, refusal = self._clock(), no_place
        if refusal is None and (key_rest.has_been or self._rest.has_been):
            refusal = self._rest.refusal() or key_rest.refusal()
        if refusal is None and breaker is not None and (passed := breaker.admit()) is None:
            refusal = self._shut(breaker)
        if refusal is None and tries is not None:
            if self.name in tries.reached:
                refusal = self._no_retry(passed, in_place)
            else:
                tries.reached += (self.name,)
                self._budget.called(began_s)
            exchange.retry_budget = self._budget
        if refusal is not None:
            raise self._refused(exchange, refusal, has_place=no_place is None)
        try:
            response = await self._llm.send(exchange)
            stream = response if isinstance(response, Stream) else None
            if stream is not None and tries is not None:
                await _committed(stream, tries.commit)
        except BaseException as error:
            self._unanswered(exchange, error, passed, began_s, attempts)
            raise
        if self.key is not None or key_rest.has_been:
            self._sign(exchange, attempts)
            key_rest.answered()
        if stream is not None:
            stream.on_finish(partial(self._ended, passed, began_s))
            return response
        # It has been read whole, and said something: what becomes of it now is not the LLM's doing.
        places.leave()
        if passed is not None:
            passed.succeeded(self._clock() - began_s)
        return response

    def _unanswered(
        self, exchange: Exchange, error: BaseException, passed: Pass | None, began_s: float, attempts: int
    ) -> None:
        """The call gave no answer, but *error*; there were so many *attempts* before it."""
        self.places.leave()
        self._sign(exchange, attempts)
        if not isinstance(error, ProxyError):
            if passed is not None:
                passed.dropped()
            return
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

    def _sign(self, exchange: Exchange, attempts: int) -> None:
        """Name our key in what came after so many *attempts*."""
        if self.key is not None:
            for attempt in exchange.attempts[attempts:]:
                attempt.key = self.key

    def _shut(self, breaker: Breaker) -> Unavailable:
        """Why nothing passes the *breaker*."""
        said = f"The LLM '{self.name}' is failing, and is not called now"
        return Unavailable(said, retry_after_s=breaker.retry_in_s())

    def _no_retry(self, passed: Pass | None, in_place: bool) -> Unavailable | None:
        """Why it may not be called again for the same exchange; the pass is given back then."""
        if (in_place and not self.is_in_doubt) or self._budget.take():
            return None
        if passed is not None:
            passed.dropped()
        return BudgetSpent(f"The LLM '{self.name}' has had its share of retries")

    def _refused(self, exchange: Exchange, refusal: Unavailable, *, has_place: bool) -> Unavailable:
        """It is not called, and the place that it may have had is given back."""
        if has_place:
            self.places.leave()
        pass_over(exchange, self.name, self.key, refusal)
        if exchange.tries is not None:
            exchange.tries.failed(failure_of(refusal), refusal)
        return refusal

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

    def _ended(self, passed: Pass | None, began_s: float, outcome: Outcome) -> None:
        """The stream has ended."""
        self.places.leave()
        if passed is None:
            return
        error = outcome.error
        seconds = (outcome.first_byte_s or outcome.ended_s) - began_s
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
