"""Questions to one processor, as a test asks them: a real gateway around it, and a scripted LLM behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType

import attrs

from llmproxy_core.chat import ChatReply, ChatRequest
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import Outcome
from llmproxy_core.testing.asked import HEADERS, chat
from llmproxy_core.testing.chunks import plain
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.heard import hear
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.played import Call, Play
from llmproxy_core.testing.said import Said
from llmproxy_core.testing.stage import Run, Stage
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.ways import PLAIN, PULLED


@attrs.frozen
class Got:
    """What came of a question. *error*: raised before the answer, or what broke its stream."""

    body: bytes
    reply: ChatReply | None
    """The answer as the client understands it; None when there is none to read."""
    error: ProxyError | None
    exchange: Exchange
    outcome: Outcome
    bill: Outcome | None
    """Its outcome with all that it detached; None while that goes on."""
    sent: tuple[ChatRequest, ...]
    """What the LLM was asked in the client's name, in order."""
    own: tuple[ChatRequest, ...]
    """What LLMs were asked by the processor itself."""

    @property
    def text(self) -> str:
        return "" if self.reply is None else self.reply.text

    def header(self, name: str) -> str | None:
        """The last value of a header of our own for the client."""
        return dict(self.exchange.response_headers).get(name)


class ProcessorGateway:
    """A gateway around one processor, for as many questions as a test has: `async with ProcessorGateway(declared)`."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._stand = Stand(declared)
        self._stage: Stage | None = None
        self._asked = 0

    async def __aenter__(self) -> ProcessorGateway:
        self._stage = Stage(self._stand)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stage is not None:
            await self._stage.__aexit__(kind, error, trace)

    async def ask(
        self,
        question: str | None = None,
        says: Said | str | ProxyError | None = None,
        *,
        stream: bool = False,
        headers: Sequence[tuple[str, str]] = HEADERS,
    ) -> Got:
        """
        Ask *question* (default: the declared one), to which the LLM says *says* (default: the first declared answer).

        *headers* are the client's, (lower-case name, value). A ProxyError as *says* is raised by the LLM.
        """
        assert self._stage is not None, "use it as: async with ProcessorGateway(declared) as gateway"
        self._asked += 1
        asked = attrs.evolve(chat(self._declared, stream=stream, text=question), headers=headers)
        assert asked.api is not None
        said = self._declared.answers[0] if says is None or isinstance(says, ProxyError) else says
        said = Said(text=said) if isinstance(said, str) else said
        chunks = plain(said, self._declared.dialect, asked.api).chunks
        play = Play(said, stream, chunks, says if isinstance(says, ProxyError) else None)
        run = await self._stage.call(asked, PULLED if stream else PLAIN, play, id=f"call-{self._asked}")
        if run.result is None:
            raise asyncio.CancelledError
        return self._got(run)

    def _got(self, run: Run) -> Got:
        dialect, api, result = self._declared.dialect, run.asked.api, run.result
        assert api is not None
        assert result is not None
        reply = hear(dialect, api, run.body, stream=run.asked.stream).reply if run.body else None

        def read(calls: list[Call]) -> tuple[ChatRequest, ...]:
            return tuple(dialect.read_chat(call.exchange.request.api or api, call.body) for call in calls)

        own = [call for call in run.calls if call.own]
        return Got(run.body, reply, run.error, run.exchange, result.outcome, run.bill, read(run.main), read(own))


async def ask(
    declared: Declared,
    question: str | None = None,
    says: Said | str | ProxyError | None = None,
    *,
    stream: bool = False,
    headers: Sequence[tuple[str, str]] = HEADERS,
) -> Got:
    """One question to a new processor; see `ProcessorGateway.ask`."""
    async with ProcessorGateway(declared) as gateway:
        return await gateway.ask(question, says, stream=stream, headers=headers)


def run(
    declared: Declared,
    question: str | None = None,
    says: Said | str | ProxyError | None = None,
    *,
    stream: bool = False,
    headers: Sequence[tuple[str, str]] = HEADERS,
) -> Got:
    """As `ask`, in an event loop of its own: for tests that are no coroutines."""
    return in_own_loop(lambda: ask(declared, question, says, stream=stream, headers=headers))
