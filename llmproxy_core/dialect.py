"""A dialect: all that is known about one provider's wire protocol, as pure functions over bytes and values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import attrs

from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest
from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.headers import Headers
from llmproxy_core.secret import Secret
from llmproxy_core.usage import Usage


class Operation(StrEnum):
    """What a call asks, whatever the protocol."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    COUNT_TOKENS = "count_tokens"
    OPAQUE = "opaque"


@attrs.frozen
class Api:
    """
    One wire form of a dialect: an operation with the method, path and JSON it is spoken in.

    *path* is relative to the provider's base URL (`/chat/completions`); `{model}` in it stands for a model name,
    slashes included. *name* is unique over all dialects (`openai.chat`). *has_body*: a JSON body is required.
    """

    name: str
    operation: Operation
    method: str
    path: str
    has_body: bool = True


@attrs.frozen
class Located:
    """An API found in a request path: the path's suffix from *start* on is the API's own."""

    api: Api
    start: int
    model: str | None = None
    """The name in the path, percent signs decoded."""


@attrs.define
class RequestHead:
    """The few facts of a request body that pass-through needs. Made per call."""

    model: str | None = None
    stream: bool = False
    wants_usage: bool = False


@attrs.define
class ReplyHead:
    """The few facts of a whole answer that accounting needs. Made per call."""

    usage: Usage | None = None
    model: str | None = None
    finish: tuple[str, ...] = ()
    """The finish words of the choices, as the provider spells them."""
    id: str | None = None
    """The provider's own id of the answer."""


@attrs.define
class Frame:
    """
    One event of a stream as read: its exact bytes and its meaning.

    Joining the `raw` of all frames gives the stream back. *source* is the dialect's own memory of the event, for
    its writer alone.
    """

    raw: bytes
    events: list[ChatEvent]
    source: object = None


class Scanner(Protocol):
    """
    Watches a stream that is copied as bytes, as cheaply as the protocol allows.

    `feed` gives the whole events that may go to the client now (an incomplete rest is held back; a usage event that
    the client did not ask for is withheld) and nothing after an error event, which it keeps as *error* instead.
    *done* is set by the terminal event. *decoded* counts events whose JSON was decoded, for the tests that guard
    the hot path.
    """

    usage: Usage | None
    model: str | None
    id: str | None
    finish: tuple[str, ...]
    done: bool
    error: UpstreamError | None
    decoded: int

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes:
        """The upstream's body has ended: its last event, made whole if nothing but its blank line is missing."""
        ...

    def output_tokens(self) -> int:
        """An estimate of the tokens in what has passed, for a stream that ends without having told its usage."""
        ...


class StreamReader(Protocol):
    """Bytes of a stream, split anywhere, to frames. UpstreamGarbage for what is not the protocol."""

    def feed(self, data: bytes) -> list[Frame]: ...

    def end(self) -> list[Frame]:
        """The body has ended: what an unfinished last event still gives."""
        ...


class StreamWriter(Protocol):
    """Events to the bytes of a stream, one call per frame read, one wire write per call."""

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        """
        The bytes for *events*; b"" when there is nothing to say.

        *frame* is what they were read from when its bytes are of this very wire form, else None. When the events are
        the frame's own, its bytes are given back; when some were changed, only they are, the frame's unknown members
        stay. A usage event is left out unless the writer was made with `usage=True`.
        """
        ...


class Dialect(ABC):
    """
    One wire protocol. All methods are pure; instances have no state and are shared by all calls.

    A dialect that does not know an operation simply has no Api for it.
    """

    name: str
    apis: tuple[Api, ...]
    roots: tuple[str, ...] = ("/v1",)
    """The version segments that begin the protocol's own part of a path; what follows is relative to the base URL."""
    request_headers: frozenset[str] = frozenset()
    """Request headers (lower-case) that go on to the upstream; credentials never do."""
    influencing_headers: frozenset[str] | None = None
    """Those of the request headers that may change what the answer says; None: all of them."""
    response_headers: frozenset[str] = frozenset()
    """Response headers (lower-case) that cross to the client."""
    response_header_prefixes: tuple[str, ...] = ()
    query: frozenset[str] = frozenset()
    """Query parameters of known operations that go on to the upstream."""
    stream_type: str = "text/event-stream"

    # -- where ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def locate(self, path: str) -> Sequence[Located]:
        """
        The APIs whose path is a suffix of *path*, the longest suffix first; empty when none is.

        The version root belongs to the suffix when it is there: `/v1/chat/completions` starts at `/v1`.
        """

    def crosses(self, header: str) -> bool:
        """Whether the upstream's response header *header* (lower-case) goes on to the client."""
        return header in self.response_headers or header.startswith(self.response_header_prefixes or ("\0",))

    # -- requests ------------------------------------------------------------------------------------------------

    @abstractmethod
    def read_head(self, api: Api, body: bytes) -> RequestHead:
        """One scan of *body*. BadRequest for no acceptable JSON object (`jsontext`) and for a field of a wrong type."""

    @abstractmethod
    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        """The meaning of *body*. BadRequest, naming the field, for what is no request of this protocol."""

    @abstractmethod
    def write_chat(self, api: Api, chat: ChatRequest) -> bytes:
        """*chat* in this protocol, untouched members and nodes byte-equal. Unsupported for what it cannot say."""

    @abstractmethod
    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        """
        *body*, of this wire form, with the fewest bytes changed.

        *model* replaces the model asked for; *stream* asks for a streamed or a plain answer; *ask_usage* makes a
        streamed answer report its usage. None and False leave things as they are.
        """

    # -- whole answers -------------------------------------------------------------------------------------------

    @abstractmethod
    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        """The accounting facts of a 2xx body. UpstreamGarbage for what is not JSON, UpstreamError for an error."""

    @abstractmethod
    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        """The meaning of a 2xx body. UpstreamGarbage for what is no answer of this protocol."""

    @abstractmethod
    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        """*reply* in this protocol, untouched nodes byte-equal."""

    # -- streams -------------------------------------------------------------------------------------------------

    @abstractmethod
    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        """A scanner for one stream. *usage*: the client asked for the usage event, so it is not withheld."""

    @abstractmethod
    def reader(self, api: Api) -> StreamReader: ...

    @abstractmethod
    def writer(self, api: Api, *, usage: bool) -> StreamWriter: ...

    # -- errors --------------------------------------------------------------------------------------------------

    @abstractmethod
    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        """
        The provider's error answer, whatever its envelope (also HTML, text, or nothing).

        400/404/409/413/422/429/5xx keep their status, *body* for clients of this protocol, and `Retry-After`;
        401/402/403/407 become UpstreamAuthError with our own text and no body: they are about our key.
        """

    @abstractmethod
    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        """The body of an error answer; an UpstreamError of this dialect keeps the provider's own body."""

    @abstractmethod
    def error_event(self, error: ProxyError, request_id: str) -> bytes:
        """The last, whole event of a stream that failed."""

    # -- upstream calls ------------------------------------------------------------------------------------------

    @abstractmethod
    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        """The headers that present our *key* to the provider."""

    def constant_headers(self) -> list[tuple[str, str]]:
        """Headers that every upstream call of this protocol carries (a version, …)."""
        return []

    # -- model lists ---------------------------------------------------------------------------------------------

    @abstractmethod
    def write_models(self, api: Api, models: Sequence[str], *, created: int, model: str | None = None) -> bytes:
        """
        A model list (or, with *model*, that one entry) in the form of *api*, for LLMs whose models are configured.

        *created* is seconds since the epoch: when this configuration was loaded.
        """
