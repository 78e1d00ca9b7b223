"""What the client asks: bytes first, meaning on demand."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import unquote_plus

import attrs
import msgspec

from llmproxy_core.carried import SEAL_MARK
from llmproxy_core.chat import ChatRequest, ReasoningPart, changed
from llmproxy_core.dialect import Api, Dialect, Operation, RequestHead
from llmproxy_core.embeddings import EmbeddingsRequest
from llmproxy_core.errors import BadRequest, Unsupported
from llmproxy_core.headers import Headers
from llmproxy_core.jsontext import scan
from llmproxy_core.node import record
from llmproxy_core.translation import Translation

_CHAT = Operation.CHAT  # as a global a fifth as dear: each call asks for it
CONVERSATIONS = frozenset({Operation.CHAT, Operation.COUNT_TOKENS})
"""Operations whose requests are conversations."""

LONGEST_MODEL = 256
"""Characters. No model has a longer name, and names are remembered in many places."""

_CREDENTIAL = re.compile(
    r"(x[-_])?(goog[-_])?(api|subscription|ocp-apim-subscription)?[-_]?key|authorization|"
    r"((access|auth|oauth|bearer|id|session)[-_]?)?token",
    re.IGNORECASE,
)
"""Names under which clients and gateways are known to take a key."""


@record
class ClientView:
    """What the client speaks and expects back, whatever processors make of the request. Made per call."""

    dialect: Dialect
    api: Api | None
    """None for an opaque call."""
    stream: bool = False
    wants_usage: bool = False
    model: str | None = None
    """The name of the model that it asked for, of a chat request."""
    drops_unsupported: bool = False
    """What the LLM's protocol cannot say is left out instead of refused (`on_unsupported` of the route)."""


@record(eq=False, kw_only=True, repr=False)
class Request:
    """
    A request. It is not changed after it is made: `with_chat`, `with_model` and `with_body` give a new one.

    Three levels of meaning, each made on demand and kept: `head` (one scan), `json` (top-level members), `chat`
    (neutral). A request of a processor's own (`Request.of_chat`) has no wire form of its own; the LLM's is used.
    """

    operation: Operation
    dialect: Dialect | None = None
    api: Api | None = None
    method: str = "POST"
    path: str = ""
    """As received: raw, with percent signs, without the query."""
    query: str = ""
    headers: Headers = attrs.field(factory=Headers)
    _body: bytes | None = None
    content: AsyncIterator[bytes] | bytes | None = None
    """The body of an opaque request, in pieces unless all of it is there; None for all others."""
    _chat: ChatRequest | None = None
    path_model: str | None = None
    """The model that the path names, for protocols where it does."""
    relative_path: str = ""
    """Of an opaque request: the path below the upstream's base URL."""
    continues: bool = False
    """Whether its last turn is an answer that has begun and is to be gone on with, by whoever can: see `continued`."""
    _head: RequestHead | None = attrs.field(init=False, default=None)
    _json: dict[str, msgspec.Raw] | None = attrs.field(init=False, default=None)
    _embeddings: EmbeddingsRequest | None = attrs.field(init=False, default=None)
    _rendered: dict[object, tuple[bytes, dict[str, str]]] | None = attrs.field(init=False, default=None)

    @classmethod
    def of_chat(cls, chat: ChatRequest) -> Request:
        """A request of our own making, for `exchange.child` and `exchange.detach`."""
        return cls(operation=Operation.CHAT, chat=chat)

    # -- meaning -------------------------------------------------------------------------------------------------

    @property
    def influencing_query(self) -> str:
        """What of the query may change what the answer says: not the caller's key, nor what chooses its form alone."""
        form = self.api.query.split("&") if self.api is not None else ()
        return "&".join(field for field in self.query.split("&") if not is_credential(field) and field not in form)

    @property
    def body(self) -> bytes:
        """The body in its own wire form; empty for one without."""
        if self._body is None:
            if self._chat is None or self.dialect is None or self.api is None:
                return b""
            self._body = self.dialect.write_chat(self.api, self._chat)
        return self._body

    @property
    def head(self) -> RequestHead:
        """Model, stream and the like. BadRequest when the body is no acceptable JSON."""
        if (head := self._head) is not None:
            return head
        chat, api, dialect = self._chat, self.api, self.dialect
        if chat is not None:
            head = RequestHead(self.path_model or chat.model, chat.stream, chat.wants_usage)
        elif api is None or not api.has_body or dialect is None:
            head = RequestHead(self.path_model)
        else:
            head = dialect.read_head(api, self.body if self._body is None else self._body)
            if self.path_model:
                head.model = self.path_model
            if api.streams is not None:
                head.stream = head.wants_usage = api.streams
        if (model := head.model) is not None and len(model) > LONGEST_MODEL:
            raise BadRequest(f"The name of the model is longer than {LONGEST_MODEL} characters", param="model")
        self._head = head
        return head

    @property
    def model(self) -> str | None:
        head = self._head
        return self.head.model if head is None else head.model

    @property
    def json(self) -> dict[str, msgspec.Raw]:
        """The body's top-level members, each as JSON text. BadRequest when the body is no JSON object."""
        if self._json is None:
            self._json = dict(scan(self.body).raws)  # the reader of the chat may be given the same scan
        return self._json

    @property
    def chat(self) -> ChatRequest:
        """The neutral conversation of a chat request. BadRequest when its dialect cannot read it."""
        if self._chat is None:
            if self.dialect is None or self.api is None or self.operation not in CONVERSATIONS:
                raise BadRequest(f"A {self.operation} request is no conversation")
            self._chat = self._with_path(self.api, self.dialect.read_chat(self.api, self.body))
        return self._chat

    def _with_path(self, api: Api, chat: ChatRequest) -> ChatRequest:
        """*chat*, with what the path says: the body need not."""
        if self.path_model is not None:
            chat = changed(chat, model=self.path_model)
        streams = api.streams
        if streams is not None and (chat.stream, chat.wants_usage) != (streams, streams):
            chat = changed(chat, stream=streams, wants_usage=streams)
        return chat

    @property
    def parameters(self) -> ChatRequest:
        """
        How the chat is to be answered; its `messages` and `tools` may be missing. Not for `with_chat`.

        BadRequest as `chat`, of which it takes a small part where nobody has asked for that.
        """
        if self._chat is not None or self.dialect is None or self.api is None or self.operation is not _CHAT:
            return self.chat
        return self._with_path(self.api, self.dialect.read_parameters(self.api, self.body))

    @property
    def embeddings(self) -> EmbeddingsRequest:
        """The meaning of an embeddings request. BadRequest when its dialect cannot read it."""
        if self._embeddings is None:
            if self.dialect is None or self.api is None or self.operation is not Operation.EMBEDDINGS:
                raise BadRequest(f"A {self.operation} request asks for no embeddings")
            asked = self.dialect.read_embeddings(self.api, self.body)
            self._embeddings = asked if self.path_model is None else attrs.evolve(asked, model=self.path_model)
        return self._embeddings

    # -- change --------------------------------------------------------------------------------------------------

    def with_chat(self, chat: ChatRequest) -> Request:
        """The same call with another conversation; what *chat* left untouched stays byte-equal."""
        return self._copy(body=None, chat=chat, path_model=chat.model)

    def continued(self, chat: ChatRequest) -> Request:
        """The same call with *chat*, whose last turn is an answer that has begun. An LLM that cannot go on refuses."""
        request = self.with_chat(chat)
        request.continues = True
        return request

    def with_model(self, model: str) -> Request:
        """The same call for another model."""
        if self._chat is not None and self._body is None:
            request = self._copy(body=None, chat=attrs.evolve(self._chat, model=model), path_model=model)
            request.continues = self.continues
            return request
        if self.dialect is None or self.api is None:
            raise BadRequest(f"A {self.operation} request names no model")
        return self._copy(body=self.dialect.prepare(self.api, self.body, model=model), path_model=model)

    def with_body(self, body: bytes) -> Request:
        """The same call with another body in the same wire form."""
        return self._copy(body=body)

    def _copy(self, *, body: bytes | None, chat: ChatRequest | None = None, path_model: str | None = None) -> Request:
        return Request(
            operation=self.operation,
            dialect=self.dialect,
            api=self.api,
            method=self.method,
            path=self.path,
            query=self.query,
            headers=self.headers,
            body=body,
            content=self.content,
            chat=chat,
            path_model=None if self.path_model is None else path_model or self.path_model,
            relative_path=self.relative_path,
        )

    # -- for the upstream ----------------------------------------------------------------------------------------

    def render(
        self,
        dialect: Dialect,
        api: Api,
        *,
        model: str | None,
        stream: bool | None,
        ask_usage: bool,
        translation: Translation | None = None,
    ) -> bytes:
        """
        The body for an upstream that speaks *api* of *dialect*, made once per distinct form.

        In its own wire form: the bytes received with the fewest changes (`Dialect.prepare`), None and False leaving
        things as they are. In another: rendered from the meaning, *translation* being told what that cost; Unsupported
        for what cannot be said there.
        """
        same_form = self.api is not None and self.api.form == api.form
        is_foreign = same_form and self.operation is _CHAT and self.body.rfind(SEAL_MARK) >= 0
        if same_form and model is None and stream is None and not ask_usage and not is_foreign:
            return self.body
        form = (api.name, model, stream, ask_usage)
        if self._rendered is None:
            self._rendered = {}
        elif (known := self._rendered.get(form)) is not None:
            body, changes = known
            if translation is not None:
                translation.changes |= changes
            return body
        if same_form:
            body = self._without_foreign(dialect, api) if is_foreign else self.body
            body = dialect.prepare(api, body, model=model, stream=stream, ask_usage=ask_usage)
        else:
            translation = Translation() if translation is None else translation
            try:
                body = self._translated(dialect, api, translation, (model, stream, ask_usage))
            except Unsupported as error:
                raise translation.told(error) from None
        self._rendered[form] = body, {} if translation is None else translation.changes
        return body

    def _without_foreign(self, dialect: Dialect, api: Api) -> bytes:
        """The body less the thinking that a provider of another protocol gave: no other provider takes it back."""
        messages = []
        for message in self.chat.messages:
            kept = tuple(
                part
                for part in message.content
                if not (isinstance(part, ReasoningPart) and part.provider not in (None, dialect.name))
            )
            messages.append(message if len(kept) == len(message.content) else attrs.evolve(message, content=kept))
        return dialect.write_chat(api, attrs.evolve(self.chat, messages=tuple(messages)))

    def _translated(
        self, dialect: Dialect, api: Api, translation: Translation, changes: tuple[str | None, bool | None, bool]
    ) -> bytes:
        """*changes*: the model to send, whether to stream, and to ask for usage; as in `render`."""
        model, stream, ask_usage = changes
        if self.operation is Operation.EMBEDDINGS:
            asked = self.embeddings if model is None else attrs.evolve(self.embeddings, model=model)
            return dialect.write_embeddings(api, asked, translation)
        chat = self.chat
        streams = chat.stream if stream is None else stream
        wants_usage = streams and (ask_usage or chat.wants_usage)
        model = chat.model if model is None else model
        if (model, streams, wants_usage) != (chat.model, chat.stream, chat.wants_usage):
            chat = changed(chat, model=model, stream=streams, wants_usage=wants_usage)
        translation.is_led = _is_led(chat)
        return dialect.write_chat(api, chat, translation)


def is_credential(field: str) -> bool:
    """Whether *field* of a query is, or (after a `;`) holds, what clients present as their key."""
    parts = re.split(";|%3b", field, flags=re.IGNORECASE)
    return any(_CREDENTIAL.fullmatch(unquote_plus(part.partition("=")[0]).strip()) for part in parts)


def client_view(request: Request, *, drops_unsupported: bool = False) -> ClientView:
    """What the client of *request* expects. Only for requests that came from one (they have a dialect)."""
    assert request.dialect is not None
    if request.api is None or request.operation is not _CHAT:
        return ClientView(request.dialect, request.api, drops_unsupported=drops_unsupported)
    head = request.head
    return ClientView(request.dialect, request.api, head.stream, head.wants_usage, head.model, drops_unsupported)


def _is_led(chat: ChatRequest) -> bool:
    """Whether the first message of *chat* was read from a member of its own."""
    origin = chat.origin
    if origin is None or not isinstance(origin.value, ChatRequest) or not origin.value.messages:
        return False
    first = origin.value.messages[0]
    return first.role == "system" and first.raw is not None and first.raw.text in origin.members.values()
