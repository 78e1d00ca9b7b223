"""Processors around an LLM, asked as a client would, without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.exchange import Exchange
from llmproxy_core.headers import Headers
from llmproxy_core.pipeline import Step, compose
from llmproxy_core.processor import Processor
from llmproxy_core.request import Request, client_view
from llmproxy_core.tasks import Tasks
from llmproxy_core.testing.client import Result, serve
from llmproxy_core.testing.clock import FakeClock
from llmproxy_core.testing.script import ScriptedLLM


class Pipeline:
    """Processors around an LLM, asked as a client would, without sockets. Leaving it waits for background work."""

    def __init__(
        self,
        dialect: Dialect,
        llm: ScriptedLLM,
        *,
        processors: Sequence[Processor] = (),
        tasks: Tasks,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._dialect = dialect
        self._clock = clock or FakeClock()
        self._handler = compose([Step(type(it).__name__, it) for it in processors], llm.send)
        self.tasks = tasks
        self.background: set[Exchange] = set()

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tasks.drain(5)

    def exchange(self, api: Api, body: bytes, *, headers: Sequence[tuple[str, str]] = ()) -> Exchange:
        """The exchange of a request with *body* in *api*."""
        request = Request(
            operation=api.operation,
            dialect=self._dialect,
            api=api,
            path=api.path,
            headers=Headers(headers),
            body=body,
        )
        return Exchange(
            request,
            id="test",
            route="/",
            tasks=self.tasks,
            clock=self._clock,
            client=client_view(request),
            background=self.background,
        )

    async def ask(
        self, api: Api, body: bytes, *, headers: Sequence[tuple[str, str]] = (), pushed: bool = False
    ) -> Result:
        """Ask, and take the answer to its end; *pushed* takes a stream by `attach` instead of reading it."""
        exchange = self.exchange(api, body, headers=headers)
        return await self.serve(exchange, pushed=pushed)

    async def serve(self, exchange: Exchange, *, pushed: bool = False) -> Result:
        """Do for *exchange* what an edge does. Cancelling it is the client going away."""
        return await serve(exchange, self._handler, pushed=pushed)
