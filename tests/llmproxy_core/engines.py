"""A stream to be worked on, and both engines that can."""

from collections.abc import Callable

import pytest

from llmproxy_core import Api, Channel, ClientView, Scanner, Stream, StreamReader, Tasks
from llmproxy_core.engine import Engine, engine_for
from llmproxy_core.testing import ScriptedBody
from llmproxy_openai import OpenAIDialect
from tests.llmproxy_core.conversation import CHAT, DIALECT, events, exchange, question
from tests.recordings import openai_recordings, without_usage_chunk

STREAM = b"".join(events("hello ", "wörld"))
WITHOUT_USAGE = without_usage_chunk(STREAM)
STREAMS = [it for it in openai_recordings() if it.is_event_stream and it.protocol == "chat"]


class Watched(OpenAIDialect):
    """Remembers the scanners and readers it made: what was decoded can be counted."""

    def __init__(self) -> None:
        self.scanners: list[Scanner] = []
        self.readers = 0

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        self.scanners.append(super().scanner(api, usage=usage))
        return self.scanners[-1]

    def reader(self, api: Api) -> StreamReader:
        self.readers += 1
        return super().reader(api)


def response_of(
    dialect: OpenAIDialect = DIALECT, *, api: Api | None = CHAT, redact: Callable[[bytes], bytes] | None = None
) -> Stream:
    tasks = Tasks()
    call = exchange(tasks, body=question(stream=True))
    return Stream(call, ScriptedBody([], tasks), dialect=dialect, api=api, redact=redact)


def client_of(*, usage: bool = False, dialect: OpenAIDialect = DIALECT, api: Api | None = CHAT) -> ClientView:
    return ClientView(dialect, api, True, usage)


def play(engine: Engine, *reads: bytes) -> bytes:
    """What all *reads* and the end of the body give."""
    out = b""
    for data in reads:
        if engine.done or engine.error is not None:
            return out
        out += engine.feed(data)
    if not engine.done and engine.error is None:
        out += engine.end()
    return out


def unseen(channel: Channel) -> None:
    return None


def both(response: Callable[[], Stream] = response_of, *, usage: bool = False) -> list[tuple[Stream, Engine]]:
    """The same stream in the copying engine and in the decoding one, which somebody watches without a look."""
    copied, decoded = response(), response()
    decoded.watch(unseen)
    return [
        (copied, engine_for(copied, client_of(usage=usage))),
        (decoded, engine_for(decoded, client_of(usage=usage))),
    ]


BOTH = pytest.mark.parametrize("which", [0, 1], ids=["copying", "decoding"])
