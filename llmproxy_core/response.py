"""What a call answers: a whole `Reply` or a `Stream`, what may be asked of it, and its exactly-once end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import msgspec

from llmproxy_core.attempt import Attempt
from llmproxy_core.body import Body, Sink
from llmproxy_core.chat import ChatEvent, ChatReply
from llmproxy_core.dialect import Api, Dialect, Operation, ReplyHead
from llmproxy_core.disclosure import shows_nothing
from llmproxy_core.embeddings import EmbeddingsReply
from llmproxy_core.errors import InternalError, ProxyError, UpstreamAuthError, UpstreamError, raise_unless_bug
from llmproxy_core.estimate import BILLED_OPERATIONS, estimated_reply, estimated_usage
from llmproxy_core.exchange import Exchange
from llmproxy_core.layer import Layer, running
from llmproxy_core.money import Money, Price
from llmproxy_core.outcome import End, KeptBody, OnFinish, Outcome
from llmproxy_core.request import Request
from llmproxy_core.subscription import Keep, MakeFilter, MakeWatcher, Replace, Rewrite, Subscription, Transform, Watch
from llmproxy_core.token_estimate import ROUGH, Tokenizer
from llmproxy_core.usage import Usage, UsageSource

_log = logging.getLogger("llmproxy")
_COMPLETED = End.COMPLETED  # as a global a fifth as dear: each call asks for it
_ESTIMATED = UsageSource.ESTIMATED


_NOT_SHOWN = "*** (what the provider said cannot be shown)"


def redact_error(error: UpstreamError, redact: Callable[[bytes], bytes] | None) -> None:
    """Cut our secrets out of an error as the upstream told it; what may hold them in other letters is not kept."""
    if redact is None:
        return
    for name in ("message", "code", "error_type", "param"):
        if (text := getattr(error, name)) is not None:
            shown = redact(text.encode())
            setattr(error, name, shown.decode() if shows_nothing(shown, "", redact) else _NOT_SHOWN)
    error.args = (error.message,)  # what a traceback in the log shows
    if error.body is not None:
        body = redact(error.body)
        error.body = body if shows_nothing(body, "", redact) else None
    if (received := error.received) is not None:
        data = redact(received.data)
        is_clean = shows_nothing(data, received.content_type, redact)
        error.received = attrs.evolve(received, data=data) if is_clean else None


def _filled(usage: Usage | None, read: Usage | None) -> Usage | None:
    """*usage*, with the half that is 0 in it as it was *read*; *read* where both are."""
    if usage is None or not usage.total_tokens:
        return read
    if read is None or (usage.input_tokens and usage.output_tokens):
        return usage
    asked, answered = usage.input_tokens or read.input_tokens, usage.output_tokens or read.output_tokens
    return attrs.evolve(usage, input_tokens=asked, output_tokens=answered, source=read.source)


def _is_reported(error: ProxyError | None) -> bool:
    """Whether it was the provider that said so."""
    return isinstance(error, UpstreamError) and (error.dialect is not None or error.code == UpstreamAuthError.code)


class ResponseBase(msgspec.Struct, kw_only=True, eq=False):
    """
    What `Reply` and `Stream` share: who made it, what was subscribed to, and how it ended.

    It carries the dialect and the bytes of whoever made it; `relay` brings them to the client. Subscriptions apply
    in the order made, the inner processor's first, and work the same on both kinds and for every dialect.

    A struct, as one is made for each call: what has a signature below (for readers, and type checkers) is made in C.
    """

    exchange: Exchange
    """What it belongs to."""
    dialect: Dialect
    api: Api | None
    """None for an opaque answer."""
    status: int = 200
    headers: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """Those that cross to the client, (lower-case name, value)."""
    head: ReplyHead | None = None
    """The accounting facts that it began with: `model`, `usage` and the like may have changed since."""
    llm: str = ""
    """Who made it; "": no LLM did."""
    price: Price | None = None
    billed: bool = True
    attempt: Attempt | None = None
    model: str | None = None
    shown_model: str | None = None
    """The name of the model for the client's eyes, where another one was sent; None: as the provider says."""
    response_id: str | None = None
    usage: Usage | None = None
    """What the provider said so far; final once the response has ended, then estimated where it said nothing."""
    tokenizer: Tokenizer = ROUGH
    """Counts what the provider does not; whoever makes the response may set a better one."""
    output_tokens: Callable[[Tokenizer], int] | None = None
    """Gives an estimate of the tokens read so far; set by who reads."""
    finish_words: tuple[str, ...] = ()
    subscriptions: list[Subscription] = msgspec.field(default_factory=list)
    outcome: Outcome | None = None
    started_s: float = 0.0
    first_byte_s: float | None = None
    """When it began to answer: a whole one when it was there, a stream with the first event that answers something."""
    _request: Request | None = None
    """What was asked, as it was when the answer came."""
    _callbacks: list[OnFinish] | None = None
    """Made for the few that are asked for one."""
    _is_whole: ClassVar[bool] = False
    """Whether all of it has been read when it is made."""

    __repr__ = object.__repr__  # that of a struct would show the body
    if not TYPE_CHECKING:  # for which it would mean that anything may be set
        # See `record`: a sixth as dear as by msgspec's own, which have no use here, where an exchange is held.
        __setattr__, __delattr__ = object.__setattr__, object.__delattr__

    def __post_init__(self) -> None:
        exchange = self.exchange
        self._request = exchange.request
        self.headers = list(self.headers)
        if (head := self.head) is not None:
            self.model, self.response_id = head.model, head.id
            self.usage, self.finish_words = head.usage, head.finish
        self.started_s = now = exchange.clock()
        if self._is_whole:
            self.first_byte_s, attempt = now, self.attempt
            if attempt is not None and attempt.ended_s is None:
                attempt.ended_s = now
        exchange.own(self)

    # -- what a processor may ask --------------------------------------------------------------------------------

    def on_finish(self, callback: OnFinish) -> None:
        """Call *callback* once with the outcome of this response, in the order asked."""
        if self.outcome is not None:
            self.exchange.settle(callback, self.outcome)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def keep_body(self, max_bytes: int, *, partial: bool = False) -> Keep:
        """
        Keep the answer's bytes: as its maker sent them, or, asked above a rewrite, as rewritten.

        They are in the result's `body`, and in `Outcome.body` (of the outermost who asked), once the response has
        completed; None when they are more than *max_bytes*, or the response ended otherwise. With *partial*, the
        result has the beginning then, of what was read.
        """
        keep = Keep(max_bytes, partial)
        self.subscriptions.append(keep)
        return keep

    def watch(self, make: MakeWatcher) -> None:
        """
        Show the text of every channel to a watcher of its own, which may raise a ProxyError to stop the response.

        Embeddings and model lists have no text. A TypeError on an opaque answer, which nobody can look into.
        """
        self._need_text()
        self.subscriptions.append(Watch(make, running.get()))

    def rewrite(self, make: MakeFilter) -> None:
        """Send the text of every channel through a filter of its own; what it gives is what goes on. As `watch`."""
        self._need_text()
        self.subscriptions.append(Rewrite(make, running.get()))

    def _need_text(self) -> None:
        """A guard that sees nothing must not look like one that found nothing."""
        if self.api is None:
            raise TypeError("an opaque answer has no text to subscribe to")

    def replace(self, transform: Transform) -> None:
        """
        Replace the event iterator itself: the slow path, for what neither `watch` nor `rewrite` can say.

        On a Reply, *transform* gets the events that the reply amounts to. The answer is written anew from the events
        that it gives: what they do not hold is lost (members that the dialect does not know, pings, the spelling of
        the usage). A transform neither gets the End nor gives one; when it ends early, so does the answer.
        """
        self._need_text()
        self.subscriptions.append(Replace(transform, running.get()))

    def forget(self, owner: Layer) -> None:
        """Drop the watchers, filters and replacements of a processor that is passed over."""
        self.subscriptions[:] = [it for it in self.subscriptions if isinstance(it, Keep) or it.owner is not owner]

    async def reply(self) -> ChatReply:
        """
        The whole answer as a processor reads it, all subscriptions applied; finishes the response.

        The response may still be returned: its bytes are kept for the client.
        """
        from llmproxy_core.drain import drain

        assert isinstance(self, Reply | Stream)
        return await drain(self)

    async def started(self, chars: int = 0) -> None:
        """Return once the answer has really begun: nothing to wait for on a reply."""

    def cost_so_far(self) -> Money | None:
        """
        What it has cost up to now; None where no price is known. Nothing changes by asking.

        While it is under way that is an estimate: of what the provider has told, or of what was read where that is
        more. Each time all of the question is counted.
        """
        if self.outcome is not None:
            return self.outcome.cost
        if not self.billed:
            return Money()
        read = self._estimate()
        usage = _filled(self.usage, read)
        if read is not None and usage is not None and read.output_tokens > usage.output_tokens:
            usage = attrs.evolve(usage, output_tokens=read.output_tokens, source=read.source)
        return None if self.price is None or usage is None else self.price.cost(usage)

    # -- its end -------------------------------------------------------------------------------------------------

    @property
    def is_awaited(self) -> bool:
        """See Owned."""
        return bool(self._callbacks)

    def finish(self, end: End, error: ProxyError | None = None, *, ended_s: float | None = None) -> None:
        """
        End the response, unless it has ended: at *ended_s*, by the exchange's clock, if that was earlier than now.

        Synchronous: safe to call from a cancelled task.
        """
        if self.outcome is not None:
            return
        complete, usage, price = end is _COMPLETED, self.usage, self.price
        is_all_said = complete and usage is not None and self.billed and usage.source is not _ESTIMATED
        if is_all_said and usage is not None and usage.input_tokens + usage.output_tokens:  # nearly always
            cost = None if price is None else price.cost(usage)
        else:
            usage, cost = self._used(error, complete=complete)
        self.outcome = outcome = Outcome(  # in their order: names are looked for
            end,
            error,
            usage,
            cost,
            self.model,
            self.response_id,
            self.finish_words,
            self._kept(complete=complete) if self.subscriptions else None,
            self.started_s,
            self.first_byte_s,
            self.exchange.clock() if ended_s is None else ended_s,
        )
        attempt = self.attempt
        if attempt is not None:
            attempt.answered(outcome)
        self._free(complete=complete)
        if self._callbacks:
            for callback in self._callbacks:
                self.exchange.settle(callback, outcome)
            self._callbacks.clear()

    def _used(self, error: ProxyError | None, *, complete: bool) -> tuple[Usage | None, Money | None]:
        """
        Tokens and what they cost: as the provider said, else estimated from what was sent and read.

        No call uses nothing at all, so who says that (servers that do not count, chunks before the first word) has
        said nothing; and a stream that broke off before it was told used the output that was read. So did who told
        half of it, and of the other half nothing, or what cannot be true. Only a provider that reports an *error*, and
        nothing before it, bills nothing.
        """
        usage = self.usage
        if not self.billed or (usage is None and _is_reported(error) and not self._read_tokens()):
            return None, None if self.price is None else Money()
        if self.llm and self.api is not None and self.api.operation in BILLED_OPERATIONS:
            if usage is None or self._wants_estimate(usage):
                usage = self.usage = _filled(usage, self._estimate())
            elif not (complete or usage.output_tokens) and (read := self._estimate()) and read.output_tokens:
                usage = self.usage = attrs.evolve(usage, output_tokens=read.output_tokens, source=read.source)
        return usage, None if self.price is None or usage is None else self.price.cost(usage)

    def _estimate(self) -> Usage | None:
        """What was sent and read, counted here: an estimate."""
        try:
            return estimated_usage(self._request or self.exchange.request, self._read_tokens(), self.tokenizer)
        except BaseException as bug:  # noqa: BLE001 - a dialect's bug must not keep the response from ending
            raise_unless_bug(bug)
            _log.exception("what exchange %s used could not be estimated", self.exchange.id)
            return None

    def told_usage(self, usage: Usage | None) -> Usage | None:
        """
        What a client whose protocol always tells the usage is told, where the answer says *usage*.

        That itself, if it says enough; else with an estimate of what it does not say.
        """
        return _filled(usage, self._estimate()) if self._wants_estimate(usage) else usage

    def _wants_estimate(self, usage: Usage | None) -> bool:
        """Whether *usage* says nothing, or is an estimate of which half is wanting; embeddings have no output."""
        if usage is None or not usage.input_tokens + usage.output_tokens:
            return True
        if usage.source is not _ESTIMATED:
            return False
        is_answered = usage.output_tokens or self.api is None or self.api.operation is not Operation.CHAT
        return not (usage.input_tokens and is_answered)

    def _read_tokens(self) -> int:
        """An estimate of the tokens of output that were read."""
        return 0 if self.output_tokens is None else self.output_tokens(self.tokenizer)

    def _kept(self, *, complete: bool) -> KeptBody | None:
        """What the outermost keeper has. All bytes may have come, and the answer be broken off all the same."""
        keeps = [wish for wish in self.subscriptions if isinstance(wish, Keep)]
        if not complete:
            for wish in keeps:
                wish.body = None if wish.so_far is None else wish.so_far()
        for wish in keeps:
            wish.so_far = None  # it holds all that was kept, and is held by that
        kept = keeps[-1].body if keeps else None
        return kept if kept is not None and kept.complete else None

    def _free(self, *, complete: bool) -> None:
        """Give back what stands behind the response."""


class Reply(ResponseBase, eq=False):
    """A whole answer, in memory."""

    exchange: Exchange
    body: bytes
    content_type: str = "application/json"
    _said: ChatReply | None = None
    _vectors: EmbeddingsReply | None = None
    _is_whole = True

    if TYPE_CHECKING:

        def __init__(
            self,
            exchange: Exchange,
            body: bytes,
            *,
            dialect: Dialect,
            api: Api | None,
            head: ReplyHead | None = None,
            status: int = 200,
            headers: Iterable[tuple[str, str]] = (),
            content_type: str = "application/json",
            llm: str = "",
            price: Price | None = None,
            billed: bool = True,
            attempt: Attempt | None = None,
        ) -> None:
            """
            *body* is written in *api*; *head* its accounting facts.

            *headers* are those that cross to the client, (lower-case name, value); *api* is None for an opaque answer.
            *llm* names who made it; "": no LLM did. *price* is what its tokens cost; None: unknown. *billed* is False
            for an answer that another call has paid for, from a cache say: it tells a usage, but adds none, and with a
            price costs nothing. *attempt* is the call that it is the answer to, and is told how it ends.
            """

    def said(self) -> ChatReply:
        """What the answer to a chat says, as its maker sent it; read once. UpstreamError when that is no answer."""
        if self._said is None:
            assert self.api is not None
            self._said = self.dialect.read_reply(self.api, self.body)
        return self._said

    def vectors(self) -> EmbeddingsReply:
        """What the answer to embeddings says, as `said`."""
        if self._vectors is None:
            assert self.api is not None
            self._vectors = self.dialect.read_embeddings_reply(self.api, self.body)
        return self._vectors

    def _read_tokens(self) -> int:
        if self.api is None or self.api.operation is not Operation.CHAT:
            return 0
        return estimated_reply(self.dialect, self.api, self.body, self.tokenizer)

    @classmethod
    def of_chat(cls, exchange: Exchange, reply: ChatReply) -> Reply:
        """
        An answer of a processor's own, in the wire form of the client.

        The usage that it tells the client is not added to the exchange's: no model was called for it, or the
        response that it was read from has counted it.
        """
        client = exchange.client
        if client is None or client.api is None:
            raise TypeError("only a chat request of a client can be answered with a ChatReply")
        head = ReplyHead(None, reply.model, tuple(c.finish.reason for c in reply.choices if c.finish))
        body = client.dialect.write_reply(client.api, reply)
        return cls(exchange, body, dialect=client.dialect, api=client.api, head=head)


class Stream(ResponseBase, eq=False):
    """An answer that arrives in pieces. Processors subscribe to it; only `relay` and `drain` read it."""

    exchange: Exchange
    body: Body
    """Where it comes from: for this class alone."""
    content_type: str = "text/event-stream"
    redact: Callable[[bytes], bytes] | None = None
    _peeked: list[bytes] = msgspec.field(default_factory=list)
    _begun: bool = False
    begun_by: ChatEvent | None = None
    """The first event that answers something; None: not yet, or nobody waited for it."""
    max_bytes: int | None = None
    """Of all of it, where it is gathered to a whole; None: whoever made it has bounded it."""

    if TYPE_CHECKING:

        def __init__(
            self,
            exchange: Exchange,
            body: Body,
            *,
            dialect: Dialect,
            api: Api | None,
            status: int = 200,
            headers: Iterable[tuple[str, str]] = (),
            content_type: str = "text/event-stream",
            llm: str = "",
            price: Price | None = None,
            billed: bool = True,
            redact: Callable[[bytes], bytes] | None = None,
            attempt: Attempt | None = None,
        ) -> None:
            """
            *body* is a stream of *api*, or anything at all when *api* is None. *redact* cuts our secrets out of what
            the upstream says of its errors. Others as in Reply.
            """

    async def started(self, chars: int = 0) -> None:
        """
        Return once the first meaningful event is here, and *chars* characters of what is said; what is read is kept.

        Raises the UpstreamError, with the response finished, when the stream fails before that: the point up to
        which another attempt is still possible. Idempotent; when it is cancelled, what was read is kept too.
        """
        if self.api is None or (self._begun and not chars):
            return
        from llmproxy_core.drain import read_until_meaningful

        try:
            await read_until_meaningful(
                self.body.read, self.dialect, self.api, self._peeked, chars=chars, note=self._note_begun
            )
        except ProxyError as error:
            if isinstance(error, UpstreamError):
                redact_error(error, self.redact)
            self.finish(End.of(error), error)
            self._peeked.clear()  # nobody will read it, and the exchange may have other tries
            raise
        self._begun = True

    def _note_begun(self, event: ChatEvent) -> None:
        if self.begun_by is None:
            self.begun_by = event
            self.note_begun()

    # -- for relay and drain -------------------------------------------------------------------------------------

    def read(self) -> Coroutine[Any, Any, bytes]:
        """
        The next bytes, those that `started` kept first; b"" at the end. Raises an UpstreamError.

        Straight from the body: all waits go through what stands in between.
        """
        return self._read_kept() if self._peeked else self.body.read()

    def rewind(self, pieces: Iterable[bytes]) -> None:
        """Give *pieces*, all that was read, once more."""
        self._peeked[:0] = pieces

    async def _read_kept(self) -> bytes:
        return self._peeked.pop(0)

    def note_begun(self) -> None:
        """It answers something; the first time counts."""
        if self.first_byte_s is None:
            self.first_byte_s = self.exchange.clock()

    def attach(self, sink: Sink) -> None:
        """Push to *sink* what `read` would give."""
        for data in self._peeked:
            sink.feed(data)
        self._peeked.clear()
        if self.outcome is None:  # what was kept may have been all of it
            self.body.attach(sink)
        elif self.outcome.end is End.COMPLETED:
            sink.end(None)
        else:
            sink.end(InternalError("The answer was over before it was sent"))

    @property
    def pushes(self) -> bool:
        """Whether `attach` is the cheaper way."""
        return self.body.pushes

    def pause(self) -> None:
        self.body.pause()

    def resume(self) -> None:
        self.body.resume()

    def _free(self, *, complete: bool) -> None:
        if complete:
            self.body.release()
        else:
            self.body.close()


Response = Reply | Stream
"""What a handler gives: one of the two."""
