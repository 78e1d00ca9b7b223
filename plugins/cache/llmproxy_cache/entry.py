"""A kept answer, and what it is worth keeping."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self

import msgspec

from llmproxy_core import (
    CHANGED_HEADER,
    COUNTED_HEADER,
    Api,
    Dialect,
    Exchange,
    KeptBody,
    Price,
    ProxyError,
    PulledBody,
    Reply,
    ReplyHead,
    Response,
    Stream,
    Tasks,
)
from llmproxy_core.chat import ChatReply, Finished, FinishReason, RefusalDelta, RefusalPart

_FREE = Price(0, 0)
_AT_ONCE = 16 << 10  # bytes of a stream that are read in one turn of the loop: less than a millisecond
_TOLD = frozenset({CHANGED_HEADER, COUNTED_HEADER})
_WITHHELD = frozenset({FinishReason.CONTENT_FILTER, FinishReason.REFUSAL, FinishReason.ERROR})


class Entry(msgspec.Struct, array_like=True, frozen=True, tag="llmproxy.cache.2"):
    """An answer as its maker sent it, after all that stood below the cache. *stored_at*: seconds since the epoch."""

    stored_at: float
    dialect: str
    api: str
    stream: bool
    data: bytes
    content_type: str
    llm: str
    model: str | None
    finish: tuple[str, ...]
    shown: str | None = None
    """The model's name for the client's eyes, where another one was sent."""
    told: tuple[tuple[str, str], ...] = ()
    """What the client is told of how the answer was made: (name, value) of headers."""

    @classmethod
    def of(cls, response: Response, kept: KeptBody, exchange: Exchange, *, now: float) -> Self:
        """*exchange* is the one that *response* was made in."""
        return cls(
            now,
            response.dialect.name,
            kept.api,
            kept.stream,
            kept.data,
            response.content_type,
            response.llm,
            response.model,
            response.finish_words,
            response.shown_model,
            tuple(pair for pair in exchange.response_headers if pair[0] in _TOLD),
        )

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """What `bytes` wrote; None for anything else, an entry of another version say."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
            return None

    def __bytes__(self) -> bytes:
        return msgspec.msgpack.encode(self)

    def replay(self, exchange: Exchange, dialects: Mapping[str, Dialect], tasks: Tasks) -> Response | None:
        """The answer once more, for *exchange*; None when its dialect is not spoken here any more."""
        dialect = dialects.get(self.dialect)
        api = _api(dialect, self.api)
        if dialect is None or api is None:
            return None
        if not self.stream:
            head = ReplyHead(None, self.model, self.finish)
            reply = Reply(
                exchange,
                self.data,
                dialect=dialect,
                api=api,
                head=head,
                content_type=self.content_type,
                llm=self.llm,
                price=_FREE,
                billed=False,
            )
            reply.shown_model = self.shown
            return reply
        left = [self.data]

        async def read() -> bytes:
            return left.pop() if left else b""

        body = PulledBody(read, tasks=tasks)
        stream = Stream(
            exchange,
            body,
            dialect=dialect,
            api=api,
            content_type=self.content_type,
            llm=self.llm,
            price=_FREE,
            billed=False,
        )
        stream.shown_model = self.shown
        return stream


def _api(dialect: Dialect | None, name: str) -> Api | None:
    return next((api for api in dialect.apis if api.name == name), None) if dialect is not None else None


async def is_worth_keeping(dialect: Dialect, kept: KeptBody) -> bool:
    """
    Whether a complete answer is one to be given again: not a refusal, nor what a provider's filter has stopped.

    False as well for what cannot be read, since nobody knows what it says. Of a long one others have their turn.
    """
    api = _api(dialect, kept.api)
    if api is None:
        return False
    try:
        if kept.stream:
            return await _stream_is_good(dialect, api, kept.data)
        return _reply_is_good(dialect.read_reply(api, kept.data))
    except ProxyError:
        return False


def _reply_is_good(reply: ChatReply) -> bool:
    return bool(reply.choices) and all(
        choice.finish is not None
        and choice.finish.reason not in _WITHHELD
        and not any(isinstance(part, RefusalPart) for part in choice.content)
        for choice in reply.choices
    )


async def _stream_is_good(dialect: Dialect, api: Api, data: bytes) -> bool:
    reader = dialect.reader(api)
    begun, finished = set[int](), set[int]()
    for start in range(0, len(data) + 1, _AT_ONCE):
        if start:
            await asyncio.sleep(0)
        frames = reader.feed(data[start : start + _AT_ONCE])
        if start + _AT_ONCE > len(data):
            frames += reader.end()
        for event in (event for frame in frames for event in frame.events):
            if isinstance(event, RefusalDelta):
                return False
            if (choice := getattr(event, "choice", None)) is not None:
                begun.add(choice)
            if isinstance(event, Finished):
                if event.finish.reason in _WITHHELD:
                    return False
                finished.add(event.choice)
    return bool(begun) and begun == finished
