"""A running gateway around one processor, and single calls through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType

import attrs

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ConfigError, ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.response import Response
from llmproxy_core.tasks import Tasks
from llmproxy_core.testing.asked import Asked, SeenRequest
from llmproxy_core.testing.client import Result, serve
from llmproxy_core.testing.loop import Stepped, what_is_left
from llmproxy_core.testing.played import Book, Call, Play, PlayedLLM, PlayedStream
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.testing.ways import Way

CALL_S = 20.0
"""How long one call may take; so that a processor that hangs is a finding."""


@attrs.define(eq=False)
class Run:
    """One call: what the client got, and what the call left behind."""

    way: Way
    asked: Asked
    exchange: Exchange
    request: SeenRequest
    """The client's, whatever the processor made of it."""
    calls: list[Call] = attrs.field(factory=list)
    task: asyncio.Task[Result] | None = None
    """Cancelling it is the client going away."""
    result: Result | None = None
    """None when it was cancelled."""
    pieces: list[bytes] = attrs.field(factory=list)
    steps: int = 0
    """How often it waited."""
    finishes: int = 0
    """How often `on_finish` was called."""
    bill: Outcome | None = None
    dropped: int = 0
    """Answers in the client's own name that were still open when the processor answered with another one."""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def where(self) -> str:
        """What was called, for messages."""
        return str(self.way) if self.asked.operation is Operation.CHAT else str(self.asked.operation)

    @property
    def error(self) -> ProxyError | None:
        return None if self.result is None else self.result.error

    @property
    def main(self) -> list[Call]:
        """The calls in the client's name."""
        return [call for call in self.calls if not call.own]


def _no_step(step: int) -> None:
    pass


def _no_piece(piece: bytes) -> None:
    pass


class Stage:
    """A gateway with a processor of its own, in one event loop; its calls may overlap."""

    def __init__(self, stand: Stand, *, bare: bool = False) -> None:
        """*bare*: without the processor."""
        self._dialect = stand.declared.dialect
        self._tasks = Tasks()
        self._edge = Tasks()
        try:
            self.gateway = stand.build(stand.config(bare=bare), self._tasks)
        except ConfigError as error:
            raise NotConforming(f"the processor cannot be built from the keys it is tested with:\n{error}") from error
        self.book = Book()
        self.book.background = self.gateway.background
        for llm in self.gateway.llms.values():
            if isinstance(llm, PlayedLLM):
                llm.book = self.book

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for exchange in list(self.gateway.background):
            exchange.finish(End.ABANDONED)
        await self._tasks.drain(0)
        await self.gateway.aclose()

    def begin(self, asked: Asked, way: Way, play: Play, *, id: str = "call-1") -> Run:
        """A call, not yet answered."""
        match = self.gateway.match(asked.method, asked.path(self._dialect))
        request = asked.request(self._dialect, match)
        exchange = self.gateway.begin(match, request, request_id=id)
        run = Run(way, asked, exchange, request)
        self.book.plays[id] = play
        self.book.clients.add(exchange)

        def finished(outcome: Outcome) -> None:
            run.finishes += 1

        def billed(outcome: Outcome) -> None:
            run.bill = outcome

        exchange.on_finish(finished)
        exchange.on_billed(billed)
        return run

    async def serve(
        self,
        run: Run,
        *,
        at_step: Callable[[int], None] = _no_step,
        on_piece: Callable[[bytes], None] = _no_piece,
    ) -> Run:
        """
        Answer *run* to its end. *at_step* is told in its own task how often it has waited, *on_piece* each piece.

        NotConforming when it hangs.
        """

        def take(piece: bytes) -> None:
            run.pieces.append(piece)
            on_piece(piece)

        work = serve(run.exchange, lambda exchange: self._handle(run, exchange), pushed=run.way.pushed, on_piece=take)
        stepped = Stepped(work, at_step)
        task = run.task = self._edge.start(_awaited(stepped), name="client")
        done, _ = await asyncio.wait({task}, timeout=CALL_S)
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=1)
            raise NotConforming(f"{run.where}: the call has not ended after {CALL_S:g} s; something waits for ever")
        run.steps = stepped.steps
        run.calls = self.book.of(run.exchange)
        if not task.cancelled():
            run.result = task.result()
        return run

    async def _handle(self, run: Run, exchange: Exchange) -> Response:
        answer = await self.gateway.handle(exchange)
        opened = [call.response for call in self.book.of(exchange) if call.exchange is exchange]
        run.dropped = sum(it is not None and it is not answer and it.outcome is None for it in opened)
        if isinstance(answer, PlayedStream):
            answer.delivered = True
        return answer

    async def call(self, asked: Asked, way: Way, play: Play, *, id: str = "call-1") -> Run:
        """Ask, and take the answer to its end."""
        return await self.serve(self.begin(asked, way, play, id=id))

    async def together(self, runs: Sequence[Run], pace: int) -> None:
        """Answer all of *runs* at once, each *pace* turns of the loop behind the one before it."""

        async def late(turns: int, run: Run) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await self.serve(run)

        await asyncio.gather(*(late(place * pace, run) for place, run in enumerate(runs)))

    async def leftovers(self) -> list[str]:
        """Tasks that go on, and detached exchanges that are open, though all calls are over."""
        left = [f"the task {name}" for name in await what_is_left()]
        return left + ["a detached exchange" for _ in self.gateway.background]


async def _awaited(stepped: Stepped[Result]) -> Result:
    return await stepped
