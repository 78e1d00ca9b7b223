"""A group that asks a second member while the first is slow: who begins to answer first has won."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil

from llmproxy_core.dialect import Operation
from llmproxy_core.effects import has_effects
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.group_config import RaceConfig
from llmproxy_core.groups.explained import explain
from llmproxy_core.groups.members import Members
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.failure import BY_KIND, Failure, failure_of
from llmproxy_core.response import Response
from llmproxy_core.services import Services

WINDOW = 100
"""Calls over which the share of second ones is counted, and of each member those whose times are remembered."""
ENOUGH = 20
"""So many times must be known before they say what is slow."""
AFTER_S = 2.0
"""What is slow until then."""
PERCENTILE = 95.0

_NOT_FOR_THE_NEXT = BY_KIND | {Failure.CALLER, Failure.OURS}
"""Failures after which the next member is not asked, or one that the table names."""


# -- what is remembered ----------------------------------------------------------------------------------------------


class Share:
    """
    How many calls may have a second one: *most* of every 100 that begin one after another.

    None has been used when it is made, so that the first calls of a process may have theirs.
    """

    __slots__ = ("_calls", "_most", "_taken")

    def __init__(self, most: float) -> None:
        """*most*: a share of 1."""
        self._most = int(most * WINDOW + 1e-9)  # 0.29 * 100 is a little less than 29
        self._calls = 0
        self._taken: deque[int] = deque(maxlen=max(self._most, 1))
        """How many calls had begun when each of the last second ones did."""

    def called(self) -> None:
        """A call has begun."""
        self._calls += 1

    @property
    def is_left(self) -> bool:
        """Whether a second one may begin."""
        if len(self._taken) < self._most:
            return True
        return bool(self._most) and (self._most == WINDOW or self._taken[0] <= self._calls - WINDOW)

    def take(self) -> None:
        """A second one begins."""
        self._taken.append(self._calls)


class Times:
    """How long a member took to begin, of its last 100 calls, in seconds."""

    __slots__ = ("_recent", "_sorted")

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._sorted: list[float] = []

    def add(self, took_s: float) -> None:
        if len(self._recent) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent[0])]
        self._recent.append(took_s)
        insort(self._sorted, took_s)

    def __len__(self) -> int:
        return len(self._recent)

    def percentile(self, percent: float) -> float:
        """The least time that at least *percent* of the calls did not exceed; there must be one."""
        return self._sorted[max(ceil(len(self._sorted) * percent / 100), 1) - 1]


class Pace:
    """What is slow for each member of a race, and how many may be helped."""

    def __init__(self, config: RaceConfig) -> None:
        self.share = Share(config.max_extra)
        self._after_s = AFTER_S if config.after_ms is None else config.after_ms / 1000
        self._percentile = PERCENTILE if config.after_ms is None else None
        if config.after_percentile is not None:
            self._percentile = config.after_percentile
        self._times = [Times() for _ in config.members]

    def after_s(self, place: int) -> float:
        """How many seconds the member at *place* of the table is waited for alone."""
        times = self._times[place]
        if self._percentile is None or len(times) < ENOUGH:
            return self._after_s
        return times.percentile(self._percentile)

    def learn(self, place: int, took_s: float) -> None:
        """The member at *place* took so long to begin."""
        self._times[place].add(took_s)


# -- a call ----------------------------------------------------------------------------------------------------------


class Race:
    """
    The order of the table, for a `Group` that asks two members at once where the first one is slow.

    Whoever begins to answer first (the first token of a stream, a whole plain answer) answers the exchange. The other
    one is cancelled at once; what it used, as its provider told or by estimate, is in the cost of the exchange, and its
    attempt among the attempts. Never more than two are asked at the same time.

    Only chat is raced, and nothing that does more than to answer: see `has_effects`.
    """

    def __init__(self, members: Members, config: RaceConfig, services: Services) -> None:
        self._members = members
        self._pace = services.kept(("race", config), partial(Pace, config))

    def __call__(self, exchange: Exchange) -> Sequence[LLMClient]:
        llms = self._members.llms
        if exchange.operation is not Operation.CHAT:
            return llms
        self._pace.share.called()
        turns: list[Turn] = []
        for place in range(len(llms) - 1, -1, -1):
            turns.append(Turn(self._pace, place, llms[place], turns[-1] if turns else None))
        turns.reverse()
        return turns


class Turn:
    """The turn of a member in one exchange. Where it is slow those that *follow* may begin before their own."""

    __slots__ = ("_follows", "_pace", "_place", "error", "llm")

    def __init__(self, pace: Pace, place: int, llm: LLMClient, follows: Turn | None) -> None:
        self.llm = llm
        self.error: ProxyError | None = None
        """What its member failed with, when that has not been told yet."""
        self._pace = pace
        self._place = place
        self._follows = follows

    @property
    def models(self) -> ModelMap:
        return self.llm.models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return await self.llm.prices(model)

    async def aclose(self) -> None:
        """It belongs to somebody else."""

    async def send(self, exchange: Exchange) -> Response:
        if self.was_asked:
            raise self._failure()
        if self._follows is None:
            return await self.llm.send(exchange)
        runners: list[_Runner] = []
        winner: _Runner | None = None
        try:
            winner = await self._fastest(exchange, runners)
        finally:
            for runner in runners:
                if runner is not winner:
                    exchange.join(runner.branch, lost=True)
        if winner is None:
            raise self._failure()
        exchange.join(winner.branch)
        assert winner.response is not None
        winner.response.exchange = exchange
        self._learn(runners[0], winner)
        return winner.response

    @property
    def was_asked(self) -> bool:
        """Whether its member was asked before its turn, and has failed."""
        return self.error is not None

    def _failure(self) -> BaseException:
        """Why there is no answer; it is kept no longer, since its traceback will hold what holds this."""
        error, self.error = self.error, None
        return error or asyncio.CancelledError()  # let out by the LLM: nobody here has cancelled it

    def _learn(self, first: _Runner, winner: _Runner) -> None:
        """
        Remember how long they took to begin, of one that was cancelled at least how long it would have.

        Without these, what is slow would be what is slow among the quick: less and less.
        """
        winner.turn.began(winner.took_s)
        if winner is not first and self.error is None:
            self.began(first.took_s)

    def began(self, took_s: float) -> None:
        """Its member took so long to begin."""
        self._pace.learn(self._place, took_s)

    async def _fastest(self, exchange: Exchange, runners: list[_Runner]) -> _Runner | None:
        """
        Who has begun to answer, of *runners*; None where the first has failed, and whoever was asked with it.

        All who were asked are in *runners*, and nothing of them runs on, however this ends.
        """
        async with asyncio.TaskGroup() as group:

            def start(turn: Turn) -> _Runner:
                runners.append(runner := _Runner(turn, exchange, group))
                return runner

            first = start(self)
            await asyncio.wait([first.task], timeout=self._pace.after_s(self._place))
            if not first.task.done() and self._may_double(exchange):
                explain(first.branch, "slow: the next member too")
                for turn in self._following():
                    second = start(turn)
                    await asyncio.wait([first.task, second.task], return_when=asyncio.FIRST_COMPLETED)
                    if first.task.done() or not second.was_refused:
                        break
            if not first.fails_for_all and all(runner.response is None for runner in runners):
                await asyncio.wait([runner.task for runner in runners])
            for runner in runners:
                runner.task.cancel()  # of one that is over this does nothing
        return next((runner for runner in runners if runner.response is not None), None)

    def _following(self) -> Iterator[Turn]:
        turn = self._follows
        while turn is not None:
            yield turn
            turn = turn._follows

    def _may_double(self, exchange: Exchange) -> bool:
        """Whether somebody else may be asked now for *exchange*; if so, that is counted."""
        tries = exchange.tries
        if tries is not None and not (tries.left > 0 and tries.any_left):  # spent, or whoever asked has left
            return False
        share = self._pace.share
        if not share.is_left or has_effects(exchange.request):
            return False
        share.take()
        return True


class _Runner:
    """A member that is asked, in a task and a branch of the exchange of its own."""

    __slots__ = ("branch", "response", "task", "took_s", "turn")

    def __init__(self, turn: Turn, exchange: Exchange, group: asyncio.TaskGroup) -> None:
        self.turn = turn
        self.branch = exchange.branch()
        self.response: Response | None = None
        """Its answer, which has begun."""
        self.took_s = 0.0
        """Until it had begun, failed, or was cancelled."""
        self.task = group.create_task(self._run(), name="race")

    async def _run(self) -> None:
        clock = self.branch.clock
        began_s = clock()
        try:
            response = await self.turn.llm.send(self.branch)
            await response.started()
            self.response = response
        except ProxyError as error:
            self.turn.error = error.with_traceback(None)  # which holds this frame, and that the error
        except asyncio.CancelledError:
            return  # not raised again: the task would keep it, and all that its frames hold
        finally:
            self.took_s = clock() - began_s

    @property
    def was_refused(self) -> bool:
        """Whether it could not even be asked."""
        error = self.turn.error
        return error is not None and not failure_of(error).was_asked

    @property
    def fails_for_all(self) -> bool:
        """Whether it failed by what is no reason to wait for the next member's answer."""
        error = self.turn.error
        return error is not None and failure_of(error) in _NOT_FOR_THE_NEXT
