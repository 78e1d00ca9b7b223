"""Responses of which nothing was read yet, and a body that says how it was ended."""

import asyncio

from llmproxy_core import Api, Price, ProxyError, Reply, Stream, Tasks
from llmproxy_core.testing import FakeClock, ScriptedBody
from tests.llmproxy_core.conversation import CHAT, DIALECT, exchange, question, whole

Chunk = bytes | ProxyError | asyncio.Event


class CountingBody(ScriptedBody):
    """Tells a release from a close."""

    def __init__(self, chunks: list[Chunk], tasks: Tasks) -> None:
        super().__init__(chunks, tasks)
        self.ended: list[str] = []
        self.paused: list[bool] = []

    def close(self) -> None:
        self.ended.append("close")
        super().close()

    def release(self) -> None:
        self.ended.append("release")
        super().close()

    def pause(self) -> None:
        self.paused.append(True)
        super().pause()

    def resume(self) -> None:
        self.paused.append(False)
        super().resume()


def a_stream(
    tasks: Tasks, *chunks: Chunk, api: Api | None = CHAT, clock: FakeClock | None = None, price: Price | None = None
) -> tuple[Stream, CountingBody]:
    body = CountingBody(list(chunks), tasks)
    call = exchange(tasks, body=question(stream=True), clock=clock)
    return Stream(call, body, dialect=DIALECT, api=api, price=price), body


def a_reply(tasks: Tasks, text: str = "hi") -> Reply:
    return Reply(exchange(tasks), whole(text), dialect=DIALECT, api=CHAT)
