"""One thing that a dialect is tried on; what it must not raise, and what it does wrong, is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, ParamSpec, TypeVar

import attrs

from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest, Failed
from llmproxy_core.dialect import Api, Dialect, Scanner
from llmproxy_core.errors import ProxyError
from llmproxy_core.frame import Frame
from llmproxy_core.reply_events import Assembler
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.event_rules import EventRules
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.translation import Translation

T = TypeVar("T")
P = ParamSpec("P")

_ADVICE = {
    "read_chat": "it must take what this protocol's clients send",
    "write_chat": "write it, or do not declare the word in `says`",
    "read_reply": "it must take what this protocol's provider answers",
    "write_reply": "any answer can be given in any protocol: leave out what has no place in it",
    "reader": "it must take its own protocol's streams",
    "scanner": "it must take its own protocol's streams",
    "writer": "it must take any event of any protocol, in any order",
}


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


@attrs.frozen
class Case:
    """*where* says what is tried, for messages."""

    declared: DeclaredDialect
    api: Api
    where: str
    recorded: bool = False
    """What is tried was recorded: a provider may do what we never would."""

    @property
    def dialect(self) -> Dialect:
        return self.declared.dialect

    def but(self, how: str) -> Case:
        """The same, tried otherwise."""
        return attrs.evolve(self, where=f"{self.where}, {how}")

    def fail(self, what: str, details: Iterable[object] = ()) -> NoReturn:
        raise NotConforming("\n  ".join([f"{self.api.name}, {self.where}: {what}", *map(str, details)]))

    def gives(self, doing: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What *doing* gives, which must not raise."""
        return self._gives(doing.__name__, lambda: doing(*args, **kwargs))

    def _gives(self, name: str, doing: Callable[[], T]) -> T:
        try:
            return doing()
        except NotConforming:
            raise
        except Exception as error:
            said = error.message if isinstance(error, ProxyError) else str(error)
            advice = f"; {_ADVICE[name]}" if name in _ADVICE else ""
            where = f"{self.api.name}, {self.where}"
            raise NotConforming(f"{where}: {name} raises {type(error).__name__}: {said}{advice}") from error

    # -- what a dialect does -----------------------------------------------------------------------------------------

    def read_chat(self, body: bytes) -> ChatRequest:
        return self.gives(self.dialect.read_chat, self.api, body)

    def write_chat(self, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        return self.gives(self.dialect.write_chat, self.api, chat, translation)

    def read_reply(self, body: bytes) -> ChatReply:
        return self.gives(self.dialect.read_reply, self.api, body)

    def write_reply(self, reply: ChatReply) -> bytes:
        return self.gives(self.dialect.write_reply, self.api, reply)

    def read_stream(self, pieces: Iterable[bytes], *, whole: bool = True) -> ReadStream:
        """The stream that *pieces* are; *whole*: it was not broken off."""

        def read() -> list[Frame]:
            reader = self.dialect.reader(self.api)
            found = [frame for piece in pieces for frame in reader.feed(piece)]
            return [*found, *reader.end()]

        frames = self._gives("reader", read)
        rules, assembler = EventRules(), Assembler()
        for frame in frames:
            rules.feed(frame.events)
            assembler.feed(frame.events)
        rules.end(whole=whole)
        return ReadStream(frames, rules, assembler.reply())

    def write_stream(self, events: Sequence[ChatEvent], *, together: bool = False) -> bytes:
        """*events* as the bytes of a stream, each in a call of its own, or all *together* in one."""

        def write() -> bytes:
            writer = self.dialect.writer(self.api, usage=True)
            batches = [list(events)] if together else [[event] for event in events]
            return b"".join([writer.write(batch, None) for batch in batches])

        return self._gives("writer", write)

    def copy(self, pieces: Iterable[bytes], *, usage: bool = True) -> tuple[bytes, Scanner]:
        """What a scanner lets through of the stream that *pieces* are, and the scanner."""
        scanner = self.dialect.scanner(self.api, usage=usage)

        def feed() -> bytes:
            passed = [scanner.feed(piece) for piece in pieces]
            return b"".join([*passed, scanner.end()])

        return self._gives("scanner", feed), scanner


def scanned_facts(scanner: Scanner) -> dict[str, object]:
    """What a scanner has learned."""
    return {
        "usage": scanner.usage,
        "model": scanner.model,
        "id": scanner.id,
        "finish": scanner.finish,
        "done": scanner.done,
        "error": None if scanner.error is None else scanner.error.message,
    }
