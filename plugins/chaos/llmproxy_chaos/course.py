"""One call on its way through its faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from llmproxy_chaos.dice import Plan
from llmproxy_chaos.failures import deadline_passed
from llmproxy_chaos.strike import Strike
from llmproxy_chaos.tally import Tally
from llmproxy_core import Exchange, UpstreamError
from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    End,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)


class Course:
    """
    How far the answer to *exchange* has come, and which strikes lie ahead.

    A strike comes before the text that would take the answer past its place, and before the end of an answer that is
    shorter: what was decided for a call does befall it.
    """

    def __init__(self, exchange: Exchange, plan: Plan, tally: Tally) -> None:
        self.before = plan.before
        self._exchange = exchange
        self._tally = tally
        self._ahead = [strike for strike in plan.within if not strike.lasting]
        self._lasting = [strike for strike in plan.within if strike.lasting]
        self._passed = 0
        self._noted: set[str] = set()

    @property
    def is_clear(self) -> bool:
        """Whether the answer passes as it is."""
        return not (self._ahead or self._lasting)

    @property
    def waits(self) -> bool:
        """Whether there is anything ahead but failures."""
        return bool(self._lasting) or any(strike.wait_s for strike in self._ahead)

    def meets(self, events: Iterable[ChatEvent]) -> list[Strike]:
        """What comes before *events* may pass."""
        found: list[Strike] = []
        for event in events:
            if isinstance(event, Finished | End):
                found += self.rest()
            else:
                found += self.passing(len(_text(event)))
        return found

    def passing(self, characters: int) -> list[Strike]:
        """What comes before so much more text may pass."""
        if not characters:
            return []
        self._passed += characters
        met = [strike for strike in self._ahead if (strike.after_chars or 0) < self._passed]
        del self._ahead[: len(met)]
        return [*self._lasting, *met]

    def rest(self) -> list[Strike]:
        """What is left ahead, at the end of the answer; of what lasts, what has had nothing to befall."""
        met, self._ahead = self._ahead, []
        return met

    def all(self) -> list[Strike]:
        """All that befalls an answer that comes in one piece."""
        return [*self._lasting, *self.rest()]

    # -- what a strike does --------------------------------------------------------------------------------------

    async def befall(self, strike: Strike) -> None:
        """Wait, then raise what the strike fails with; UpstreamTimeout as soon as the call's deadline has passed."""
        self._note(strike)
        if strike.wait_s:
            await _wait(self._exchange, strike.wait_s)
        if strike.failure is not None:
            raise strike.failure(self._exchange)

    def failed(self, strike: Strike) -> UpstreamError | None:
        """What *strike* fails with, for who cannot wait."""
        self._note(strike)
        return None if strike.failure is None else strike.failure(self._exchange)

    def _note(self, strike: Strike) -> None:
        if strike.fault not in self._noted:
            self._noted.add(strike.fault)
            self._tally.note(self._exchange, strike.fault)


def _text(event: ChatEvent) -> str:
    """The text that *event* adds to the answer, of whatever channel."""
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text) | RefusalDelta(text=text):
            return text
        case ToolCallDelta(arguments=text):
            return text
        case AudioDelta(transcript=str(text)):
            return text
        case _:
            return ""


async def _wait(exchange: Exchange, wait_s: float) -> None:
    """An LLM's own clocks are cut to the deadline; so is this wait, since none of them runs in it."""
    if exchange.deadline_s is not None:
        left_s = exchange.deadline_s - exchange.clock()
        if left_s < wait_s:
            await asyncio.sleep(max(left_s, 0))
            raise deadline_passed()
    await asyncio.sleep(wait_s)
