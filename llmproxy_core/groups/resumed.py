"""A streamed answer that breaks off in the middle of its text, and is gone on with by another LLM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from llmproxy_core.body import PulledBody
from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    ChatRequest,
    Finished,
    Message,
    OpaqueEvent,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    TextPart,
    ToolCallStart,
    UsageReported,
    changed,
)
from llmproxy_core.chat import End as LastEvent
from llmproxy_core.drain import subscribed_events
from llmproxy_core.effects import has_effects
from llmproxy_core.engine import Facts
from llmproxy_core.errors import InternalError, ProxyError, UpstreamCut
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End
from llmproxy_core.reply_events import events_of
from llmproxy_core.request import Request
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.response import Reply, Response, Stream, redact_error
from llmproxy_core.tasks import Tasks
from llmproxy_core.usage import Usage

RESUME_HEADER = "x-llmproxy-resume"
"""Says of an answer that it may be gone on with by another LLM (`allowed`), or has been (`done`)."""
MOST_CHARS = 1_000_000
"""Of text that is remembered; what is longer is not gone on with."""
_BREAKS = frozenset({Failure.UPSTREAM, Failure.CONNECT, Failure.RATE_LIMIT})
"""What another LLM may do better."""
_NO_TEXT = (ToolCallStart, RefusalDelta, AudioDelta, Finished)

GoOn = Callable[[Exchange, Request, ProxyError], Awaitable[Response]]
"""Has the request of an answer that broke off answered by whoever is next, in a branch of its exchange."""


def resumable(stream: Stream, asked: Request, go_on: GoOn, tasks: Tasks) -> Stream:
    """
    The answer of *stream*, which *asked* got; where that breaks off, what *go_on* gets is its rest.

    Each of the parts is a response of its own, and is billed as what it was. In the answer they are one: it has the
    protocol, the id and the model of the first, one end, and the usage of all. Only text is gone on with, not what was
    answered with tools, refusals or sound, in a schema, or more than once; and nothing that did more than to answer.
    What cannot be gone on with fails as it would have failed without this.
    """
    return _Parts(stream, asked, go_on, tasks).whole


class _Parts:
    """The parts of one answer, of which the last is being read."""

    def __init__(self, first: Stream, asked: Request, go_on: GoOn, tasks: Tasks) -> None:
        assert first.api is not None
        self._asked = asked
        self._go_on = go_on
        self._reader = first.dialect.reader(first.api)
        self._writer = first.dialect.writer(first.api, usage=True)
        self._facts = Facts(first)
        self._said = _Said()
        self._seam: _Seam | None = None
        self._used: Usage | None = None
        """By the parts that are over."""
        self._error: ProxyError | None = None
        """What the part failed with, after what was read with it."""
        self._part: Response = first
        self._branch: Exchange | None = None
        self._rest: AsyncIterator[list[ChatEvent]] | None = None
        """Of a part that is not the first."""
        self.whole = whole = Stream(
            first.exchange,
            PulledBody(self._read, tasks=tasks, close=self._close, release=self._release),
            dialect=first.dialect,
            api=first.api,
            status=first.status,
            headers=[*first.headers, (RESUME_HEADER, "allowed")],
            content_type=first.content_type,
            llm=first.llm,
            price=first.price,
            billed=False,
            redact=first.redact,
        )
        whole.shown_model, whole.tokenizer = first.shown_model, first.tokenizer
        whole.max_bytes = first.max_bytes

    async def _read(self) -> bytes:
        """The next bytes of the whole."""
        while True:
            try:
                if self._error is not None:
                    raise self._error
                return await (self._copied() if self._rest is None else self._rewritten(self._rest))
            except ProxyError as error:
                self._error = None
                self._over(End.of(error), error)
                await self._resume(error)

    async def _copied(self) -> bytes:
        """Of the first part: its own bytes, whole events; b"" at its end alone."""
        part = self._part
        assert isinstance(part, Stream)
        while True:
            data = await part.read()
            out = self._whole_events(part, data)
            if out or not data or self._facts.done:
                return out

    def _whole_events(self, part: Stream, data: bytes) -> bytes:
        """What is whole of *part* with *data*, b"" at its end. Raises what it failed with, if that is all."""
        out: list[bytes] = []
        for frame in self._reader.feed(data) if data else self._reader.end():
            self._facts.look(frame.events)
            if (error := self._facts.error) is not None:
                redact_error(error, part.redact)
                self._error = error
                break
            self._said.note(frame.events)
            out.append(self._writer.write(frame.events, frame))
            if self._facts.done:
                self._over(End.COMPLETED)
                break
        if not data and self._error is None and not self._facts.done:
            self._error = UpstreamCut("The upstream's stream ended without its terminal event")
        if self._error is not None and not any(out):
            raise self._error
        return b"".join(out)

    async def _rewritten(self, rest: AsyncIterator[list[ChatEvent]]) -> bytes:
        """Of a later part: what goes on, written as the first one's provider would have."""
        async for events in rest:
            events = self._fitting(events)
            self._said.note(events)
            if events and isinstance(events[-1], LastEvent):
                self._over(End.COMPLETED)
            if out := self._writer.write(events, None):
                return out
        return b""

    def _fitting(self, events: list[ChatEvent]) -> list[ChatEvent]:
        """*events* of a later part as they go on; what it thinks of how to do that is no part of the answer."""
        assert self._seam is not None
        fitting: list[ChatEvent] = []
        for event in events:
            if isinstance(event, TextDelta):
                event.text = self._seam.feed(event.text)
            elif isinstance(event, Finished | LastEvent) and (held := self._seam.end()):
                fitting.append(TextDelta(0, held))
            elif isinstance(event, UsageReported) and self._used is not None:
                event = UsageReported(self._used + event.usage)
            if not isinstance(event, Start | ReasoningDelta) and event != TextDelta(0, ""):
                fitting.append(event)
        return fitting

    # -- from one part to the next -------------------------------------------------------------------------------

    async def _resume(self, error: ProxyError) -> None:
        """Have the next part begin; raises *error* where there is none."""
        exchange = self.whole.exchange
        failure = failure_of(error)
        request = None if failure not in _BREAKS or exchange.outcome is not None else self._request()
        if request is None:
            raise error
        broken, branch = exchange.attempts[-1:], exchange.branch()
        try:
            part = await self._go_on(branch, request, error)
        except ProxyError:
            exchange.join(branch, lost=True)
            raise error from None
        except BaseException:
            exchange.join(branch, lost=True)
            raise
        finally:
            if broken and branch.attempts:
                broken[0].next = f"{failure.value}: resumed by the next member"
        self._part, self._branch = part, branch
        self._seam = _Seam(self._said.text)
        self._rest = subscribed_events(part) if isinstance(part, Stream) else _events_of(part)
        resumed = exchange.log_fields.get("resumed", 0)
        exchange.log_fields["resumed"] = resumed + 1 if isinstance(resumed, int) else 1
        headers = self.whole.headers  # which the client may have by now
        headers[:] = [(name, "done" if name == RESUME_HEADER else value) for name, value in headers]

    def _request(self) -> Request | None:
        """What the next part is asked for; None where nobody can go on."""
        if not self._said.only_text:
            return None
        try:
            chat = self._asked.chat
            if has_effects(self._asked) or not _is_plain(chat):
                return None
        except ProxyError:
            return None
        if not self._said.text.strip():
            return self._asked  # to be answered from its beginning
        return self._asked.continued(_continued(chat, self._said.text, self._used))

    def _over(self, end: End, error: ProxyError | None = None) -> None:
        """The part that is being read is over."""
        part, branch = self._part, self._branch
        if part.outcome is not None and branch is None:
            return
        part.finish(end, error)
        if part.usage is not None and end is not End.COMPLETED:
            self._used = part.usage if self._used is None else self._used + part.usage
        if branch is not None:
            self._branch = None
            branch.finish(end, error)
            self.whole.exchange.join(branch)

    def _close(self) -> None:
        self._over(End.ABANDONED)

    def _release(self) -> None:
        self._over(End.COMPLETED)


async def _events_of(part: Reply) -> AsyncIterator[list[ChatEvent]]:
    """The events of a plain answer. UpstreamGarbage for one that is no conversation."""
    if part.api is None:
        raise InternalError("A plain answer without a protocol cannot be read")
    yield events_of(part.dialect.read_reply(part.api, part.body))


def _is_plain(chat: ChatRequest) -> bool:
    """Whether the answer to it is one text, of which any part is good for something."""
    is_text = chat.response_format is None or chat.response_format.kind == "text"
    return is_text and (chat.n or 1) == 1 and not chat.logprobs


def _continued(chat: ChatRequest, text: str, used: Usage | None) -> ChatRequest:
    """*chat*, and the *text* that was answered as a last turn which is to be gone on with."""
    messages, begun = chat.messages, text.rstrip()  # a provider refuses one that ends with white space
    if messages and messages[-1].role == "assistant":  # the client, too, had begun the answer
        before = messages[-1]
        turn = changed(before, content=(*before.content, TextPart(begun)), prefix=True)
        messages = messages[:-1]
    else:
        turn = Message("assistant", (TextPart(begun),), prefix=True)
    most = chat.max_output_tokens
    if most is not None and used is not None:
        most = max(most - used.output_tokens, 1)
    # Who thinks first cannot be told how its answer begins.
    return changed(chat, messages=(*messages, turn), max_output_tokens=most, reasoning=None)


class _Said:
    """What the client has got."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chars = 0
        self.only_text = True
        """Whether it is the beginning of one text."""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def note(self, events: list[ChatEvent]) -> None:
        for event in events:
            if isinstance(event, TextDelta):
                self._pieces.append(event.text)
                self._chars += len(event.text)
                if event.choice or self._chars > MOST_CHARS:
                    self.only_text = False
                    self._pieces.clear()
            elif isinstance(event, _NO_TEXT) or (isinstance(event, OpaqueEvent) and event.choice is not None):
                self.only_text = False


class _Seam:
    """
    Where a text goes on.

    Some begin with the text that they were to go on with, others with the white space that was cut off for them: the
    client has got both.
    """

    def __init__(self, before: str) -> None:
        self._before = before
        """Text that the rest may begin with once more."""
        self._space = before[len(before.rstrip()) :]
        self._held = ""

    def feed(self, text: str) -> str:
        """What of *text* is new, of all but the part that cannot be told yet."""
        if not self._before and not self._space:
            return text
        self._held += text
        if self._before:
            begun = self._before.rstrip()
            if len(self._held) < len(begun) and begun.startswith(self._held):
                return ""
            self._held = self._held.removeprefix(begun)
            self._before = ""
        if not self._held:
            return ""
        common = 0
        while common < len(self._space) and self._held[common : common + 1] == self._space[common]:
            common += 1
        self._space = self._space[common:] if common == len(self._held) else ""
        new, self._held = self._held[common:], ""
        return new

    def end(self) -> str:
        """What was held."""
        self._before = self._space = ""
        held, self._held = self._held, ""
        return held
