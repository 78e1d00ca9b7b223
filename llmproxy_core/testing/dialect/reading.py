"""What a dialect makes of bytes, for the checks to judge; what it must not raise is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import attrs

from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest, Failed
from llmproxy_core.dialect import Api, Dialect, Frame, Scanner
from llmproxy_core.errors import ProxyError
from llmproxy_core.reply_events import Assembler
from llmproxy_core.testing.dialect.event_rules import EventRules
from llmproxy_core.testing.verdict import NotConforming

T = TypeVar("T")


def succeeds(where: str, doing: Callable[[], T], *, advice: str = "") -> T:
    """What *doing* gives. NotConforming when it raises."""
    try:
        return doing()
    except NotConforming:
        raise
    except Exception as error:
        said = error.message if isinstance(error, ProxyError) else str(error)
        raise NotConforming(f"{where}: {type(error).__name__}: {said}{advice and f'; {advice}'}") from error


def read_chat(dialect: Dialect, api: Api, body: bytes, where: str) -> ChatRequest:
    return succeeds(where, lambda: dialect.read_chat(api, body), advice=f"read_chat must take {body[:300]!r}")


def read_reply(dialect: Dialect, api: Api, body: bytes, where: str) -> ChatReply:
    return succeeds(where, lambda: dialect.read_reply(api, body), advice=f"read_reply must take {body[:300]!r}")


@attrs.frozen
class ReadStream:
    """A stream as its reader gave it."""

    frames: Sequence[Frame]
    rules: EventRules
    reply: ChatReply

    @property
    def events(self) -> list[ChatEvent]:
        return [event for frame in self.frames for event in frame.events]

    @property
    def is_complete(self) -> bool:
        return self.rules.is_complete

    @property
    def failed(self) -> Failed | None:
        return self.rules.failed


def read_stream(dialect: Dialect, api: Api, pieces: Iterable[bytes], where: str, *, whole: bool = True) -> ReadStream:
    """The stream that *pieces* are; *whole*: it was not broken off. NotConforming when it cannot be read."""

    def read() -> list[Frame]:
        reader = dialect.reader(api)
        frames = [frame for piece in pieces for frame in reader.feed(piece)]
        return [*frames, *reader.end()]

    frames = succeeds(where, read, advice="the reader must take its own protocol's stream")
    rules, assembler = EventRules(), Assembler()
    for frame in frames:
        rules.feed(frame.events)
        assembler.feed(frame.events)
    rules.end(whole=whole)
    return ReadStream(frames, rules, assembler.reply())


def copied(scanner: Scanner, pieces: Iterable[bytes], where: str) -> bytes:
    """What *scanner* lets through of the stream."""

    def feed() -> bytes:
        passed = [scanner.feed(piece) for piece in pieces]
        return b"".join([*passed, scanner.end()])

    return succeeds(where, feed, advice="the scanner must take its own protocol's stream")


def scanned_facts(scanner: Scanner) -> dict[str, object]:
    return {
        "usage": scanner.usage,
        "model": scanner.model,
        "id": scanner.id,
        "finish": scanner.finish,
        "done": scanner.done,
        "error": None if scanner.error is None else scanner.error.message,
    }
