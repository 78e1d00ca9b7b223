"""A transport without a network: it plays a script and remembers what it was asked."""

import asyncio
from collections.abc import Callable, Sequence

import attrs

from llmproxy_core import LLMClient, Pool, ProxyError, Services, Tasks, Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.headers import Headers
from llmproxy_core.testing import FakeClock, ScriptedBody

JSON = (("content-type", "application/json"),)
EVENTS = (("content-type", "text/event-stream; charset=utf-8"),)


@attrs.frozen
class Played:
    """What the upstream answers once; header names are in lower case, as a parser gives them."""

    chunks: Sequence[bytes | ProxyError | asyncio.Event] = ()
    status: int = 200
    headers: Sequence[tuple[str, str]] = JSON


class ScriptedTransport:
    """A Transport that answers each call with the next of its script: an answer, or an error to be raised."""

    def __init__(self, script: Sequence[Played | ProxyError], tasks: Tasks) -> None:
        self._script = list(script)
        self._tasks = tasks
        self.requests: list[UpstreamRequest] = []
        self.timeouts: list[Timeouts] = []
        self.bodies: list[ScriptedBody] = []
        self.closed = False

    @property
    def request(self) -> UpstreamRequest:
        """The last."""
        return self.requests[-1]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All of the last request."""
        span = [line.partition(": ")[::2] for line in self.request.span.splitlines()]
        return [*self.request.headers, *self.request.fixed.pairs, *span]

    def header(self, name: str) -> list[str]:
        """The values of *name* in the last request."""
        return [value for field, value in self.headers if field == name]

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        self.requests.append(request)
        self.timeouts.append(timeouts)
        await asyncio.sleep(0)
        answer = self._script.pop(0)
        if isinstance(answer, ProxyError):
            raise answer
        body = ScriptedBody(answer.chunks, self._tasks)
        self.bodies.append(body)
        return UpstreamResponse(answer.status, Headers(answer.headers), body)

    async def aclose(self) -> None:
        self.closed = True


def services(
    transport: ScriptedTransport,
    tasks: Tasks,
    *,
    clock: FakeClock | None = None,
    llm: Callable[[str], LLMClient] | None = None,
) -> Services:
    """Services that lend *transport* for every pool."""

    def find(name: str) -> LLMClient:
        raise AssertionError(f"nobody should ask for the LLM {name}")

    def lend(pool: Pool) -> ScriptedTransport:
        return transport

    now_s = 1_700_000_000.9
    return Services(llm=llm or find, transport=lend, tasks=tasks, clock=clock or FakeClock(), now=lambda: now_s)
