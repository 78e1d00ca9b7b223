"""What the client asks: bytes first, meaning on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import msgspec

from llmproxy_core.chat import ChatRequest
from llmproxy_core.dialect import Api, Dialect, Operation, RequestHead
from llmproxy_core.errors import BadRequest
from llmproxy_core.headers import Headers
from llmproxy_core.jsontext import scan

LONGEST_MODEL = 256
"""Characters. No model has a longer name, and names are remembered in many places."""


@attrs.define
class ClientView:
    """What the client speaks and expects back, whatever processors make of the request. Made per call."""

    dialect: Dialect
    api: Api | None
    """None for an opaque call."""
    stream: bool = False
    wants_usage: bool = False


class Request:
    """
    A request. It is not changed after it is made: `with_chat`, `with_model` and `with_body` give a new one.

    Three levels of meaning, each made on demand and kept: `head` (one scan), `json` (top-level members), `chat`
    (neutral). A request of a processor's own (`Request.of_chat`) has no wire form of its own; the LLM's is used.
    """

    __slots__ = (
        "_body",
        "_chat",
        "_head",
        "_json",
        "_rendered",
        "api",
        "content",
        "dialect",
        "headers",
        "method",
        "operation",
        "path",
        "path_model",
        "query",
        "relative_path",
    )

    def __init__(
        self,
        *,
        operation: Operation,
        dialect: Dialect | None = None,
        api: Api | None = None,
        method: str = "POST",
        path: str = "",
        query: str = "",
        headers: Headers | None = None,
        body: bytes | None = None,
        content: AsyncIterator[bytes] | None = None,
        chat: ChatRequest | None = None,
        path_model: str | None = None,
        relative_path: str = "",
    ) -> None:
        self.operation = operation
        self.dialect = dialect
        self.api = api
        self.method = method
        self.path = path
        """As received: raw, with percent signs, without the query."""
        self.query = query
        self.headers = headers if headers is not None else Headers()
        self.content = content
        """The body of an opaque request, streamed; None for all others."""
        self.path_model = path_model
        self.relative_path = relative_path
        """Of an opaque request: the path below the upstream's base URL."""
        self._body = body
        self._chat = chat
        self._head: RequestHead | None = None
        self._json: dict[str, msgspec.Raw] | None = None
        self._rendered: dict[tuple[str, str | None, bool | None, bool], bytes] = {}

    @classmethod
    def of_chat(cls, chat: ChatRequest) -> Request:
        """A request of our own making, for `exchange.child` and `exchange.detach`."""
        return cls(operation=Operation.CHAT, chat=chat)

    # -- meaning -------------------------------------------------------------------------------------------------

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
        if self._head is None:
            head = self._read_head()
            if head.model is not None and len(head.model) > LONGEST_MODEL:
                raise BadRequest(f"The name of the model is longer than {LONGEST_MODEL} characters", param="model")
            self._head = head
        return self._head

    def _read_head(self) -> RequestHead:
        if self._chat is not None:
            return RequestHead(self.path_model or self._chat.model, self._chat.stream, self._chat.wants_usage)
        if self.api is None or not self.api.has_body or self.dialect is None:
            return RequestHead(self.path_model)
        head = self.dialect.read_head(self.api, self.body)
        head.model = self.path_model or head.model
        return head

    @property
    def model(self) -> str | None:
        return self.head.model

    @property
    def json(self) -> dict[str, msgspec.Raw]:
        """The body's top-level members, each as JSON text. BadRequest when the body is no JSON object."""
        if self._json is None:
            self._json = scan(self.body).raws
        return self._json

    @property
    def chat(self) -> ChatRequest:
        """The neutral conversation of a chat request. BadRequest when its dialect cannot read it."""
        if self._chat is None:
            if self.dialect is None or self.api is None or self.operation is not Operation.CHAT:
                raise BadRequest(f"A {self.operation} request is no conversation")
            self._chat = self.dialect.read_chat(self.api, self.body)
        return self._chat

    # -- change --------------------------------------------------------------------------------------------------

    def with_chat(self, chat: ChatRequest) -> Request:
        """The same call with another conversation; what *chat* left untouched stays byte-equal."""
        return self._copy(body=None, chat=chat, path_model=chat.model)

    def with_model(self, model: str) -> Request:
        """The same call for another model."""
        if self._chat is not None and self._body is None:
            return self._copy(body=None, chat=attrs.evolve(self._chat, model=model), path_model=model)
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

    def render(self, dialect: Dialect, api: Api, *, model: str | None, stream: bool | None, ask_usage: bool) -> bytes:
        """
        The body for an upstream that speaks *api* of *dialect*, made once per distinct form.

        In its own wire form: the bytes received with the fewest changes (`Dialect.prepare`). In another: rendered
        from the meaning; Unsupported for what cannot be said there.
        """
        if model is None and stream is None and not ask_usage and self.api is not None and self.api.name == api.name:
            return self.body
        form = (api.name, model, stream, ask_usage)
        if (body := self._rendered.get(form)) is None:
            body = self._rendered[form] = self._render(dialect, api, model, stream, ask_usage)
        return body

    def _render(self, dialect: Dialect, api: Api, model: str | None, stream: bool | None, ask_usage: bool) -> bytes:
        if self.api is not None and self.api.name == api.name:
            body = self.body
        else:
            body = dialect.write_chat(api, self.chat)
        if model is None and stream is None and not ask_usage:
            return body
        return dialect.prepare(api, body, model=model, stream=stream, ask_usage=ask_usage)


def client_view(request: Request) -> ClientView:
    """What the client of *request* expects. Only for requests that came from one (they have a dialect)."""
    assert request.dialect is not None
    if request.api is None or request.operation is not Operation.CHAT:
        return ClientView(request.dialect, request.api)
    head = request.head
    return ClientView(request.dialect, request.api, head.stream, head.wants_usage)
