"""A chain of steps around a scripted LLM, asked as the edge asks."""

import asyncio
from collections.abc import Sequence

import attrs

from llmproxy_core import End, Exchange, Processor, ProxyError, Tasks
from llmproxy_core.pipeline import Step, compose
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.testing import Answer, ScriptedLLM
from tests.llmproxy_core.conversation import CHAT, DIALECT, SOON_S, Way, exchange, question

BUG = ZeroDivisionError("a bug")


@attrs.frozen
class Ran:
    """What became of a call; *error* was raised, or is the end of the stream."""

    call: Exchange
    llm: ScriptedLLM
    body: bytes
    error: ProxyError | None


async def run_steps(way: Way, *steps: Step, tasks: Tasks, script: Sequence[Answer] = ()) -> Ran:
    """Ask through *steps* an LLM that says "hello", and "again" when it is asked again, or plays *script*."""
    answers = script or [way.answer("hel", "lo"), way.answer("again")]
    llm = ScriptedLLM(answers, dialect=DIALECT, api=CHAT, tasks=tasks)
    call = exchange(tasks, body=question(stream=way.leaves_as_stream))
    async with asyncio.timeout(SOON_S):
        try:
            response = await compose(steps, llm.send)(call)
            assert call.client is not None
            delivered = await deliver(response, call.client)
            pieces = [delivered.body] if isinstance(delivered, Whole) else await _pieces(delivered, pushed=way.pushed)
            error = None if isinstance(delivered, Whole) else delivered.error
        except ProxyError as raised:
            pieces, error = [], raised
        call.finish(End.of(error), error)
    return Ran(call, llm, b"".join(pieces), error)


async def _pieces(flow: Flow, *, pushed: bool) -> list[bytes]:
    if pushed and flow.pushable:
        pieces, over = list[bytes](), asyncio.Event()
        flow.attach(pieces.append, over.set)
        await over.wait()
    else:
        pieces = [piece async for piece in flow.pieces()]
    flow.finish()
    return pieces


def lenient(processor: Processor, name: str = "lenient", timeout_s: float | None = None) -> Step:
    """A step that is passed over when it fails."""
    return Step(name, processor, timeout_s, passes_over=True)


class RaisingWatcher:
    """Raises once it has heard *word*."""

    def __init__(self, error: Exception, word: str = "") -> None:
        self._error = error
        self._word = word
        self._heard = ""

    def feed(self, text: str) -> None:
        self._heard += text
        if self._word in self._heard:
            raise self._error

    def end(self) -> None: ...


class RaisingFilter:
    """As the watcher; what it lets pass it leaves as it is."""

    def __init__(self, error: Exception, word: str = "") -> None:
        self._watcher = RaisingWatcher(error, word)

    def feed(self, text: str) -> str:
        self._watcher.feed(text)
        return text

    def flush(self) -> str:
        return ""
