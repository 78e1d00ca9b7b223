"""
The one way from a response to the client.

`deliver` turns any response into what the client asked for: whole (`Whole`) or piece by piece (`Flow`). Only here is
a response read, only here does one dialect become another, and only here does a response of a client's call end.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import attrs

from llmproxy_core.body import Passing
from llmproxy_core.chat import ChatReply, End
from llmproxy_core.dialect import Api, Operation, StreamWriter
from llmproxy_core.drain import drain, failing, reply_of, subscribed_events
from llmproxy_core.engine import Engine, engine_for
from llmproxy_core.errors import InternalError, ProxyError, Unsupported, raise_unless_bug
from llmproxy_core.exchange import Exchange
from llmproxy_core.keeping import keep_whole
from llmproxy_core.model_shown import rename_reply, renamer, show_model
from llmproxy_core.node import record
from llmproxy_core.outcome import End as Ending
from llmproxy_core.reply_events import answers, events_of
from llmproxy_core.request import ClientView
from llmproxy_core.response import Reply, Response, Stream
from llmproxy_core.subscription import Keep, Replace

_log = logging.getLogger("llmproxy")
_CHAT, _COMPLETED = Operation.CHAT, Ending.COMPLETED  # as globals a fifth as dear: each call asks for them


@record(eq=False, repr=False)
class Whole:
    """An answer that is complete: its effects are done before it is sent."""

    status: int
    headers: list[tuple[str, str]]
    content_type: str
    body: bytes
    own: bool = False
    """No LLM made it, but we or a processor."""


def as_asked(response: Response, client: ClientView) -> Whole | None:
    """As `deliver`, of an answer to which nothing need be done, as most, and not finished; None for any other."""
    if not isinstance(response, Reply) or client.stream or response.subscriptions or response.shown_model is not None:
        return None
    mine, theirs = response.api, client.api
    if theirs is None or theirs.operation is not _CHAT:
        return None
    if mine is not theirs and (mine is None or mine.form != theirs.form):
        return None
    return Whole(response.status, response.headers, "application/json", response.body, own=not response.llm)


async def deliver(response: Response, client: ClientView) -> Whole | Flow:
    """
    *response* as *client* asked for it.

    Raises the ProxyError, with the response finished, when it fails before anything can be sent.
    """
    mine, theirs = response.api, client.api
    if mine is None or theirs is None or mine.form != theirs.form:
        client = _answered(response, client)
    elif (whole := as_asked(response, client)) is not None:
        response.finish(_COMPLETED)
        return whole
    if isinstance(response, Stream):
        if client.stream or response.api is None or client.api is None:
            return Flow(response, client)
        reply = _shown(await drain(response), response)
        return _whole(response, client, client.dialect.write_reply(client.api, reply))
    with failing(response):
        whole = await _deliver_reply(response, client)
    response.finish(_COMPLETED)
    return whole


def _answered(response: Response, client: ClientView) -> ClientView:
    """*client*, with the dialect that answers it: what it asked may choose the form of a translated answer."""
    mine, theirs = response.api, client.api
    if mine is None or theirs is None or theirs.operation is not _CHAT:
        return client
    dialect = client.dialect.answering(theirs, response.exchange.request.chat)
    return client if dialect is client.dialect else attrs.evolve(client, dialect=dialect)


async def _deliver_reply(response: Reply, client: ClientView) -> Whole:
    if client.api is None or response.api is None or client.api.operation is not _CHAT:
        return _deliver_other(response, client)
    if client.stream:
        reply = _shown(await reply_of(response), response)
        return _whole(response, client, _as_stream(reply, client), client.api.stream_type)
    same_form = client.api.form == response.api.form
    if same_form and all(isinstance(wish, Keep) for wish in response.subscriptions):
        _keep(response)
        return _whole(response, client, _renamed(response))
    reply = _shown(await reply_of(response), response)
    if not same_form and (usage := response.told_usage(reply.usage or response.usage)) is not reply.usage:
        reply = attrs.evolve(reply, usage=usage)  # other protocols always tell one
        if response.llm:
            response.usage = usage  # which is billed, though a better tokenizer may come
    return _whole(response, client, client.dialect.write_reply(client.api, reply))


def _shown(reply: ChatReply, response: Response) -> ChatReply:
    """*reply* with the model's name that the client is to see."""
    shown = response.shown_model or ("" if reply.model else response.exchange.request.model)
    return attrs.evolve(reply, model=shown) if shown else reply


def _renamed(response: Reply) -> bytes:
    """The body with the model's name that the client is to see; all other bytes stay."""
    if response.shown_model is None:
        return response.body
    return rename_reply(response.body, response.dialect.model_member, response.shown_model)


def _deliver_other(response: Reply, client: ClientView) -> Whole:
    """Lists, embeddings, counts: bytes as they are, to be kept; there is no text in them to subscribe to."""
    _keep(response)
    theirs, mine = client.api, response.api
    if theirs is None or mine is None:
        return _whole(response, client, response.body, response.content_type)
    if theirs.form == mine.form:
        return _whole(response, client, _renamed(response), response.content_type)
    return _whole(response, client, _translated(response, mine, client, theirs))


def _translated(response: Reply, mine: Api, client: ClientView, theirs: Api) -> bytes:
    """An answer that is no conversation, in the client's protocol."""
    source, target = response.dialect, client.dialect
    if mine.operation is not theirs.operation:
        raise Unsupported(f"The target LLM's protocol cannot answer {theirs.name}")
    match theirs.operation:
        case Operation.EMBEDDINGS:
            vectors = response.vectors()
            shown = response.shown_model or vectors.model or response.exchange.request.model or ""
            asked = response.exchange.request.embeddings
            usage = response.told_usage(vectors.usage or response.usage)
            return target.write_embeddings_reply(theirs, attrs.evolve(vectors, model=shown, usage=usage), asked)
        case Operation.COUNT_TOKENS:
            return target.write_count(theirs, source.read_count(mine, response.body))
        case Operation.MODELS:
            return target.write_models(theirs, source.read_models(mine, response.body))
        case _:
            raise Unsupported(f"The target LLM's protocol cannot answer {theirs.name}")


def _keep(response: Reply) -> None:
    """Keep the bytes, without a look into them, for all who asked."""
    for wish in response.subscriptions:
        if isinstance(wish, Keep) and response.api is not None:
            keep_whole(wish, response.api.name, response.body)


def _as_stream(reply: ChatReply, client: ClientView) -> bytes:
    """A whole answer as the stream the client asked for."""
    assert client.api is not None
    writer = client.dialect.writer(client.api, usage=client.wants_usage)
    return b"".join(writer.write([event], None) for event in events_of(reply))


def _whole(response: Response, client: ClientView, body: bytes, content_type: str = "application/json") -> Whole:
    return Whole(response.status, response.headers, content_type, body, own=not response.llm)


class Flow:
    """
    An answer in pieces.

    Either iterate `pieces()` or `attach`; when that has ended, and what it gave is sent, call `finish`. *error* is
    then what broke the stream, its error event having been the last piece: the connection must end without the last
    chunk, so that clients which do not know error events see it too. A caller that stops early finishes the
    exchange instead.
    """

    __slots__ = (
        "_client",
        "_begun",
        "_engine",
        "_ended",
        "_has_said",
        "_held",
        "_replaced_all",
        "_response",
        "_tells",
        "_told",
        "_write",
        "content_type",
        "ending",
        "error",
        "headers",
        "keepalive",
        "only_failed",
        "status",
    )

    def __init__(self, response: Stream, client: ClientView, *, tells_errors: bool = True) -> None:
        """*tells_errors* is False for one who passes *error* on itself: no error event is written."""
        self._response = response
        self._tells = tells_errors and response.api is not None
        self._client = client
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.content_type
        if response.api is not None and client.api is not None:
            self.content_type = client.api.stream_type
        self.keepalive = b""
        """What may be sent between two pieces while the upstream is silent; b"": nothing."""
        if response.api is not None and client.api is not None:
            self.keepalive = client.dialect.keepalive(client.api)
        self.error: ProxyError | None = None
        self.ending = False
        """Whether the piece that is pushed is the last one: its end is told at once after it."""
        self.only_failed = False
        """
        Whether nothing was answered before the error: its last piece may be left out for a status of its own.

        Only while nothing of this has been sent, `release` included.
        """
        self._has_said = False
        self._held = b""
        """What was written and says nothing yet."""
        self._begun = response.api is None or client.api is None or client.api.name == response.api.name
        """Whether what is written goes out at once: an answer in the client's own form is copied as it comes."""
        self._told: StreamWriter | None = None
        self._replaced_all = False
        wishes = response.subscriptions  # nearly always none
        replaced = bool(wishes) and any(isinstance(wish, Replace) for wish in wishes)
        self._engine: Engine | None = None if replaced else engine_for(response, client)
        self._write: Callable[[bytes], Passing | None] | None = None
        self._ended: Callable[[], None] | None = None

    @property
    def is_opaque(self) -> bool:
        """Whether nobody can look into it."""
        return self._response.api is None

    @property
    def exchange(self) -> Exchange:
        """What the answer belongs to: the client's own, or one that was made in its name."""
        return self._response.exchange

    @property
    def complete(self) -> bool:
        """Whether the piece that was given last completes the answer."""
        return self._engine.done if self._engine is not None else self._replaced_all

    @property
    def pushable(self) -> bool:
        """Whether `attach` can be used: nobody replaced the event iterator."""
        return self._engine is not None

    @property
    def pushes(self) -> bool:
        """Whether it is best pushed: the upstream can, and no code of others would run with it."""
        if self._engine is None or not self._response.pushes:
            return False
        wishes = self._response.subscriptions
        return not wishes or all(isinstance(wish, Keep) for wish in wishes)

    def pieces(self) -> AsyncIterator[bytes]:
        """
        What is to be sent, one piece per read of the upstream at most.

        The first one waits for something that is answered, unless `release` is called: until then the failure of a
        translated stream can be told by its status.
        """
        return self._pull(self._engine) if self._engine is not None else self._replaced()

    def release(self) -> bytes:
        """What waits for the answer to begin. It and all that follows goes out at once: the head has been sent."""
        self._begun = True
        held, self._held = self._held, b""
        self._has_said = self._has_said or bool(held)
        return held

    def _ready(self, out: bytes, *, begun: bool) -> bytes:
        """What may go out now, *out* being what was written last."""
        self._held += out
        if not begun:
            return b""
        return self.release()

    async def _pull(self, engine: Engine) -> AsyncIterator[bytes]:
        response = self._response
        while True:
            try:
                data = await response.read()
            except ProxyError as error:
                yield self._failed(b"", error)
                return
            out = engine.feed(data) if data else engine.end()
            if engine.error is not None:
                yield self._failed(out, engine.error)
                return
            if not self._begun:
                out = self._ready(out, begun=engine.begun)
            if out:
                self._has_said = True
                yield out
            if engine.done or not data:
                return

    async def _replaced(self) -> AsyncIterator[bytes]:
        client = self._client
        assert client.api is not None
        writer = client.dialect.writer(client.api, usage=client.wants_usage)
        self._told = writer
        shown = self._response.shown_model
        asked = self._response.exchange.request.model
        try:
            async for events in subscribed_events(self._response):
                events = show_model(events, shown, asked)
                self._replaced_all = bool(events) and isinstance(events[-1], End)
                out = writer.write(events, None)
                if not self._begun:
                    out = self._ready(out, begun=any(map(answers, events)))
                if out:
                    self._has_said = True
                    yield out
                if self._replaced_all:
                    return
        except ProxyError as error:
            yield self._failed(b"", error)
        except BaseException as bug:  # noqa: BLE001 - after the status was sent only an error event can tell of a bug
            raise_unless_bug(bug)
            _log.exception("the answer to exchange %s could not be written", self._response.exchange.id)
            yield self._failed(b"", InternalError("The answer could not be passed on"))

    def _failed(self, out: bytes, error: ProxyError) -> bytes:
        """The last piece of a failed stream: what was good, then the error event, whole and on its own."""
        self.error = error
        begun = self._begun or (self._engine is not None and self._engine.begun)
        out = self._held + out
        self._held = b""
        self.only_failed = not (self._has_said or (begun and out))
        if not self._tells:
            return out
        return out + self.last_words(error)

    def last_words(self, error: ProxyError) -> bytes:
        """The event that tells a client, who has got what was given so far, of *error*; b"" where there is none."""
        client = self._client
        if client.api is None:
            return b""
        response = self._response
        event = self._error_event(error)
        if event is None:  # a plugin made the error, of whatever cannot be told, or the dialect, which may tell of none
            event = self._error_event(InternalError("The answer could not be passed on")) or b""
        if response.shown_model is None:
            return event
        return renamer(client.dialect.model_member, response.shown_model)(event, response.model)

    def _error_event(self, error: ProxyError) -> bytes | None:
        """What tells of *error*; None where that fails, which the log says."""
        client, exchange = self._client, self._response.exchange
        assert client.api is not None
        told = self._told if self._engine is None else self._engine.told
        try:
            return client.dialect.error_event(error, exchange.id, client.api, told)
        except BaseException as bug:  # noqa: BLE001 - a plugin's: the stream ends all the same
            raise_unless_bug(bug)
            _log.exception("the error of exchange %s cannot be told", exchange.id)
            return None

    # -- pushed --------------------------------------------------------------------------------------------------

    def attach(self, write: Callable[[bytes], Passing | None], ended: Callable[[], None]) -> None:
        """
        Push pieces to *write* as they come, then call *ended* once. `pause` and `resume` hold the upstream.

        *write* gives how what follows may pass without it, if it may.
        """
        self._write, self._ended = write, ended
        self._response.attach(self)

    def detach(self) -> None:
        """Push nothing more, and tell of no end."""
        self._write = self._ended = None  # who writes holds us

    def pause(self) -> None:
        self._response.pause()

    def resume(self) -> None:
        self._response.resume()

    def feed(self, data: bytes) -> Passing | None:
        """Of the sink: bytes of the upstream."""
        engine = self._engine
        if engine is None or self._ended is None or engine.done or engine.error is not None:
            return None
        out = engine.feed(data)
        if self._begun and not engine.done and engine.error is None:
            if out and self._write is not None:
                self._has_said = True
                passing = self._write(out)
                if passing is not None and (knows := engine.passes) is not None:
                    passing.knows = knows
                    return passing
        else:
            self._send(engine, out)
        return None

    def end(self, error: ProxyError | None) -> None:
        """Of the sink: the upstream's body has ended."""
        engine = self._engine
        if engine is None or self._ended is None:
            return
        if error is not None:
            self.ending = True
            self._push(self._failed(b"", error))
            self._over()
            return
        try:
            out = engine.end()
        except BaseException as bug:  # noqa: BLE001 - a dialect's: whoever waits for the end learns of it
            raise_unless_bug(bug)
            _log.exception("the end of the answer to exchange %s could not be read", self._response.exchange.id)
            engine.error, out = InternalError("The answer could not be passed on"), b""
        self._send(engine, out, last=True)

    def _send(self, engine: Engine, out: bytes, *, last: bool = False) -> None:
        if engine.error is not None:
            out = self._failed(out, engine.error)
        elif not self._begun:
            out = self._ready(out, begun=engine.begun)
        self.ending = last or engine.done or engine.error is not None
        self._push(out)
        if self.ending:
            self._over()

    def _push(self, out: bytes) -> None:
        if out and self._write is not None:
            self._has_said = True
            self._write(out)

    def _over(self) -> None:
        ended = self._ended
        self.detach()
        if ended is not None:
            ended()

    # -- the end -------------------------------------------------------------------------------------------------

    def finish_response(self) -> None:
        """End the response as the stream ended, and nothing else."""
        self._response.finish(Ending.of(self.error), self.error)

    def finish(self) -> None:
        """End the response and its exchange as the stream ended; a child's parents with it."""
        end = Ending.of(self.error)
        self._response.finish(end, self.error)
        exchange: Exchange | None = self._response.exchange
        while exchange is not None:
            exchange.finish(end, self.error)
            exchange = exchange.parent
