"""What a scripted client asks, in any operation of a dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import attrs
import msgspec

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.dialect import Api, Dialect, Operation, RequestHead
from llmproxy_core.errors import ProxyError
from llmproxy_core.headers import Headers
from llmproxy_core.request import Request
from llmproxy_core.routing import Match
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.said import MODEL

HEADERS = (("content-type", "application/json"), ("user-agent", "scripted"), ("x-of-the-client", "kept"))


@attrs.frozen
class Asked:
    """One request of a client. *api* is None for an opaque one."""

    operation: Operation
    api: Api | None
    body: bytes
    stream: bool = False
    headers: Sequence[tuple[str, str]] = HEADERS

    @property
    def method(self) -> str:
        return "POST" if self.api is None else self.api.method

    def path(self, dialect: Dialect) -> str:
        if self.api is None:
            return f"{dialect.roots[0]}/something-nobody-knows"
        return dialect.roots[0] + self.api.path.replace("{model}", MODEL)

    def request(self, dialect: Dialect, match: Match) -> SeenRequest:
        return SeenRequest(
            operation=self.operation,
            dialect=dialect,
            api=self.api,
            method=self.method,
            path=self.path(dialect),
            headers=Headers(self.headers),
            body=None if self.api is None else self.body,
            content=_in_one(self.body) if self.api is None else None,
            path_model=match.path_model,
            relative_path=match.relative_path,
        )


class SeenRequest(Request):
    """A request that notices when somebody looks at more than its head, which the gateway has read already."""

    looked_into: bool = False

    @property
    def head(self) -> RequestHead:
        before = self.looked_into
        head = super().head
        self.looked_into = before
        return head

    @property
    def body(self) -> bytes:
        self.looked_into = True
        return super().body

    @property
    def json(self) -> dict[str, msgspec.Raw]:
        self.looked_into = True
        return super().json

    @property
    def chat(self) -> ChatRequest:
        self.looked_into = True
        return super().chat


async def _in_one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def chat(declared: Declared, *, stream: bool, text: str | None = None) -> Asked:
    """A chat request that says *text* (default: the declared question)."""
    dialect = declared.dialect
    messages = (
        Message("system", (TextPart("Antworte kurz."),)),
        Message("user", (TextPart(declared.question if text is None else text),)),
    )
    conversation = ChatRequest(MODEL, messages, stream=stream, wants_usage=stream)
    for api in dialect.apis:  # some protocols have an API of their own for streams
        if api.operation is Operation.CHAT:
            body = dialect.write_chat(api, conversation)
            if dialect.read_head(api, body).stream is stream:
                return Asked(Operation.CHAT, api, body, stream)
    raise LookupError(f"the dialect {dialect.name} has no API for chat")


def other(declared: Declared, operation: Operation) -> Asked | None:
    """A request for an operation without conversation; None when the dialect has none, or no sample is known."""
    sample = declared.sample(operation)
    if operation is Operation.OPAQUE:
        return None if sample is None else Asked(operation, None, sample.question)
    for api in declared.dialect.apis:
        if api.operation is operation and (sample is not None or not api.has_body):
            return Asked(operation, api, sample.question if sample is not None and api.has_body else b"")
    return None


def rendered(request: Request, dialect: Dialect, api: Api) -> bytes:
    """The body that an LLM of *dialect* would send for *request*, as the client's bytes say it."""
    if request.operation is Operation.CHAT:
        return request.render(dialect, api, model=None, stream=None, ask_usage=False)
    return request.body


def in_short(error: ProxyError) -> str:
    """An error in one line, with the bug behind it."""
    cause = error.__cause__
    behind = "" if cause is None else f", from {type(cause).__name__}: {cause}"
    return f"{type(error).__name__} ({error.status} {error.code}): {error.message}{behind}"
