"""A dialect: all that is known about one provider's wire protocol, as pure functions over bytes and values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol

import attrs

from llmproxy_core.api_path import api_start
from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest
from llmproxy_core.embeddings import EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.errors import ProxyError, Unsupported, UpstreamError, UpstreamGarbage
from llmproxy_core.frame import Frame
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.headers import Headers
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.node import record
from llmproxy_core.secret import Secret
from llmproxy_core.token_estimate import ROUGH, Tokenizer
from llmproxy_core.translation import Translation
from llmproxy_core.usage import Usage

Prefill = Literal["prefix", "last-turn", "no"]
"""`prefix`: the last turn, the assistant's, is marked as one to go on with; `last-turn`: it need not be; `no`: not."""


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
    form: str = attrs.field(default=attrs.Factory(lambda api: api.name, takes_self=True))
    """The JSON form of its bodies, which several APIs may share; nodes read from it remember it."""
    streams: bool | None = None
    """Whether it answers with streams; None: the body says so."""
    query: str = ""
    """What every call to the upstream has in its query (`alt=sse`)."""
    translated_query: str = ""
    """What it has besides when the client speaks another protocol, whose own query does not come along."""
    stream_type: str = "text/event-stream"
    """The media type of its streams."""


@attrs.frozen
class Located:
    """An API found in a request path: the path's suffix from *start* on is the API's own."""

    api: Api
    start: int
    model: str | None = None
    """The name in the path, percent signs decoded."""


@record
class RequestHead:
    """The few facts of a request body that pass-through needs. Made per call."""

    model: str | None = None
    stream: bool = False
    wants_usage: bool = False


@record
class ReplyHead:
    """The few facts of a whole answer that accounting needs. Made per call."""

    usage: Usage | None = None
    model: str | None = None
    finish: tuple[str, ...] = ()
    """The finish words of the choices, as the provider spells them; where there is none, the answer is read whole."""
    id: str | None = None
    """The provider's own id of the answer."""


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

    def output_tokens(self, tokenizer: Tokenizer = ROUGH) -> int:
        """
        An estimate of the tokens in what has passed, for a stream that ends without having told its usage.

        0 until it answers something: that is how it is known when it begins to.
        """
        ...


class QuickScanner(Scanner, Protocol):
    """A Scanner that knows nearly all reads at a glance; one without *passes* is fed with everything."""

    @property
    def passes(self) -> Callable[[bytes, bytes], bool] | None:
        """
        Tells of a chunk, and the line it begins with (see Passing), whether `feed` would give what is in it as it is
        and no fact change by it; None: not now.

        Where it says yes, that is counted, and the bytes are not fed any more; otherwise nothing has happened. It holds
        until something is fed.
        """
        ...


class StreamReader(Protocol):
    """Bytes of a stream, split anywhere, to frames. UpstreamGarbage for what is not the protocol."""

    def feed(self, data: bytes) -> list[Frame]: ...

    def end(self) -> list[Frame]:
        """The body has ended: what an unfinished last event still gives."""
        ...


class StreamWriter(Protocol):
    """
    Events to the bytes of a stream, one call per frame read, one wire write per call.

    One that remembers what was said, for an end that repeats it, also where it gives frames back as they came, has
    `gathers = True`: it is given no more than `Stream.max_bytes` of an upstream.
    """

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
    field_names: Mapping[str, str] = FrozenMap()
    """
    How clients of this protocol spell fields of ChatRequest that are spelt otherwise there; besides, `content` of a
    message, and `system`: the member in which a first message of the system stands, apart from the others.
    """
    own_members: frozenset[str] = frozenset()
    """Top-level members of requests that no other dialect has which shares a path with this one."""
    versioned_base: bool = True
    """Whether the base URL that its SDKs take has the version segment in it."""
    model_member: str = "model"
    """The member of answers that names the model."""
    prefill: Prefill = "no"
    """How its provider is told to go on with an answer that has begun, where nothing else is configured."""
    request_id_header: str | None = None
    """The response header in which its clients look for the id of a call, besides `x-request-id`."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for ancestor in cls.__mro__:
            if "read_parameters" in vars(ancestor):
                return
            if "read_chat" in vars(ancestor):  # it reads otherwise than whose `read_parameters` it would inherit
                cls.read_parameters = Dialect.read_parameters  # type: ignore[method-assign] # of a class that is being made
                return

    # -- where ---------------------------------------------------------------------------------------------------

    def locate(self, path: str) -> Sequence[Located]:
        """
        The APIs whose path is a suffix of *path*, the longest suffix first; empty when none is.

        The version root belongs to the suffix when it is there: `/v1/chat/completions` starts at `/v1`.
        """
        found = [Located(api, *place) for api in self.apis if (place := api_start(api, self.roots, path)) is not None]
        return sorted(found, key=lambda located: located.start)

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        """
        Whether a request to *api*, whose path another dialect or another API shares, is surely this one's.

        Told by what its SDKs send: a header, a word of the query, their User-Agent. What is new in each call, an id or
        a place in a trace, tells nothing: the answer may be kept for the requests that follow on the same connection.
        """
        return False

    def api_for(self, operation: Operation, *, stream: bool) -> Api | None:
        """The API that *operation* is called in, streamed or not; None: this protocol does not offer it."""
        fitting = (api for api in self.apis if api.operation is operation and api.streams in (None, stream))
        return next(fitting, None)

    def answering(self, api: Api, chat: ChatRequest) -> Dialect:
        """
        What writes the answer to *chat*, asked in *api* and given in another protocol: this dialect.

        A protocol whose clients choose between forms of an answer by what they ask gives another one here.
        """
        return self

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

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        """
        What *body*, of an accepted request, says besides the conversation: `messages` and `tools` may be left empty.

        For who watches: a long conversation takes a thousand times as long to read as how it is to be gone on with. A
        class that reads chats in its own way, and does not say how to read these, has them read by its `read_chat`.
        """
        return self.read_chat(api, body)

    @abstractmethod
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        """
        *chat* in this protocol, untouched members and nodes byte-equal. Unsupported for what it cannot say.

        With a *translation* it was read from another protocol: that decides what becomes of what cannot be said, and is
        told of every change. `chat.model` is then the name that is sent.
        """

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

    def keepalive(self, api: Api) -> bytes:
        """What is sent to a client while the upstream is silent, a whole event or comment; b"": nothing may be."""
        return b""

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
    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        """
        What ends a stream of *api* that failed, in whole events.

        *told* is this dialect's own scanner or writer that has seen all that the client got, for protocols that number
        their events; None: nothing was sent.
        """

    def error_status(self, error: ProxyError) -> int:
        """The status that *error* has in this protocol."""
        return error.status

    # -- upstream calls ------------------------------------------------------------------------------------------

    @abstractmethod
    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        """The headers that present our *key* to the provider."""

    def constant_headers(self) -> list[tuple[str, str]]:
        """Headers that every upstream call of this protocol carries."""
        return []

    def default_headers(self) -> list[tuple[str, str]]:
        """Headers of upstream calls that a client of this protocol may set otherwise (a version)."""
        return []

    # -- embeddings ----------------------------------------------------------------------------------------------

    def read_embeddings(self, api: Api, body: bytes) -> EmbeddingsRequest:
        """The meaning of *body*. BadRequest, naming the field, for what is no such request."""
        raise Unsupported(f"The protocol {self.name} has no embeddings")

    def write_embeddings(self, api: Api, asked: EmbeddingsRequest, translation: Translation | None = None) -> bytes:
        """*asked* in this protocol; as `write_chat`."""
        raise Unsupported(f"The protocol {self.name} has no embeddings")

    def read_embeddings_reply(self, api: Api, body: bytes) -> EmbeddingsReply:
        """The meaning of a 2xx body. UpstreamGarbage for what is no answer of this protocol."""
        raise UpstreamGarbage(f"The protocol {self.name} has no embeddings")

    def write_embeddings_reply(self, api: Api, reply: EmbeddingsReply, asked: EmbeddingsRequest) -> bytes:
        """*reply* in this protocol, in the form that *asked* wants."""
        raise Unsupported(f"The protocol {self.name} has no embeddings")

    # -- token counts --------------------------------------------------------------------------------------------
    # The requests of `count_tokens` are conversations: `read_chat` and `write_chat` with their API.

    def read_count(self, api: Api, body: bytes) -> int:
        """The tokens that a 2xx body tells. UpstreamGarbage for what is no answer of this protocol."""
        raise UpstreamGarbage(f"The protocol {self.name} counts no tokens")

    def write_count(self, api: Api, tokens: int) -> bytes:
        """The answer that a request has so many *tokens*."""
        raise Unsupported(f"The protocol {self.name} counts no tokens")

    # -- model lists ---------------------------------------------------------------------------------------------

    def read_models(self, api: Api, body: bytes) -> Sequence[ModelInfo]:
        """The models that a 2xx body names: a list's, or the one. UpstreamGarbage for what is neither."""
        raise UpstreamGarbage(f"The protocol {self.name} has no model lists")

    @abstractmethod
    def write_models(self, api: Api, models: Sequence[ModelInfo]) -> bytes:
        """The list of *models* (all of them: it is the last page), or, where *api* asks for one, the first of them."""
