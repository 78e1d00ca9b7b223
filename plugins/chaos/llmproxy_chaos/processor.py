"""The processor: faults above the LLM, as far as a processor can make them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from llmproxy_chaos.config import ChaosConfig, require_a_fault
from llmproxy_chaos.course import Course
from llmproxy_chaos.dice import Dice, Plan
from llmproxy_chaos.strike import Strike
from llmproxy_chaos.tally import Tally
from llmproxy_core import Channel, End, Exchange, Handler, ProxyError, Reply, Response, Services
from llmproxy_core.chat import ChatEvent


class Chaos:
    """Lets faults befall a share of the calls that pass."""

    def __init__(self, config: ChaosConfig, dice: Dice, tally: Tally) -> None:
        self._faults = config.faults
        self._dice = dice
        self._tally = tally

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        course = Course(exchange, Plan.of(self._faults, self._dice.throw()), self._tally)
        for strike in course.before:
            await course.befall(strike)
        response = await call_next(exchange)
        if not course.is_clear:
            await self._break(response, course)
        return response

    async def _break(self, response: Response, course: Course) -> None:
        # 1. A whole answer: it fails, or is late, as a whole. 2. An opaque one: nobody can look into it.
        # 3. Failures alone: a watcher raises them, and what passes before keeps its bytes. 4. With waits: the events
        # themselves must be held up.
        if isinstance(response, Reply):
            await break_reply(response, course)
        elif response.api is None:
            return
        elif not course.waits:
            response.watch(lambda channel: _Breaker(channel, course))
        else:
            response.replace(lambda events: _broken(events, course))


async def break_reply(reply: Reply, course: Course) -> None:
    """Let all that lies ahead befall *reply*; what fails it ends it, billed as the provider told."""
    try:
        for strike in course.all():
            await course.befall(strike)
    except ProxyError as error:
        reply.finish(End.of(error), error)
        raise


class _Breaker:
    """A watcher that stops the response at a place in its text. All channels of an answer are on one course."""

    def __init__(self, channel: Channel, course: Course) -> None:
        self._course = course

    def feed(self, text: str) -> None:
        self._fail(self._course.passing(len(text)))

    def end(self) -> None:
        self._fail(self._course.rest())

    def _fail(self, strikes: list[Strike]) -> None:
        for strike in strikes:
            if (error := self._course.failed(strike)) is not None:
                raise error


async def _broken(events: AsyncIterator[ChatEvent], course: Course) -> AsyncIterator[ChatEvent]:
    async for event in events:
        for strike in course.meets([event]):
            await course.befall(strike)
        yield event
    for strike in course.rest():  # a protocol that tells no finish
        await course.befall(strike)


def build_processor(config: ChaosConfig, services: Services) -> Chaos:
    """ConfigError for a table without any fault."""
    require_a_fault(config.faults)
    # A reload that leaves the table as it is goes on in its sequence.
    dice = services.kept(config, lambda: Dice(config.seed))
    return Chaos(config, dice, Tally(config.faults, services))
