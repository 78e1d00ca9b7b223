"""An LLM over HTTP, the scripted transport behind it, and what it is asked."""

import asyncio
import json
from typing import Any

from llmproxy_core import (
    Exchange,
    Headers,
    HttpLLM,
    HttpLLMConfig,
    Operation,
    ProxyError,
    Request,
    Response,
    Secret,
    Tasks,
)
from llmproxy_core.dialect import Dialect
from llmproxy_core.request import client_view
from llmproxy_core.testing import FakeClock
from tests.llmproxy_core.conversation import APIS, CHAT, DIALECT, SOON_S, events, question, whole
from tests.llmproxy_core.transport_double import EVENTS, Played, ScriptedTransport, services

KEY = "sk-canary-0123456789"
BASE = "https://api.example.com/v1"
ANSWER = Played([whole("hello")])
STREAM = Played(events("hello"), headers=EVENTS)


class Called:
    """An LLM, the transport behind it, and what it was asked with."""

    def __init__(
        self,
        *script: Played | ProxyError,
        tasks: Tasks,
        dialect: Dialect = DIALECT,
        clock: FakeClock | None = None,
        query: str = "",
        **config: Any,
    ) -> None:
        self.tasks = tasks
        self.clock = clock or FakeClock()
        self.transport = ScriptedTransport(script, tasks)
        table: dict[str, Any] = {"name": "fake", "provider": "openai", "base_url": BASE, "token": Secret(KEY), **config}
        self.llm = HttpLLM(
            HttpLLMConfig(**table), dialect, services(self.transport, tasks, clock=self.clock), query=query
        )

    def exchange(self, request: Request) -> Exchange:
        client = None if request.dialect is None else client_view(request)
        return Exchange(request, id="7", route="/v1", tasks=self.tasks, clock=self.clock, client=client)

    async def send(self, request: Request | None = None) -> Response:
        return await asyncio.wait_for(self.llm.send(self.exchange(request or chat())), SOON_S)

    @property
    def sent(self) -> dict[str, Any]:
        """The JSON of the last request."""
        body = self.transport.request.body
        assert isinstance(body, bytes)
        value: dict[str, Any] = json.loads(body)
        return value


def chat(body: bytes | None = None, *, headers: Headers | None = None, query: str = "") -> Request:
    return Request(
        operation=Operation.CHAT,
        dialect=DIALECT,
        api=CHAT,
        path="/v1/chat/completions",
        body=question() if body is None else body,
        headers=headers or Headers(),
        query=query,
    )


def models(name: str | None = None) -> Request:
    api = APIS["openai.models" if name is None else "openai.model"]
    return Request(operation=Operation.MODELS, dialect=DIALECT, api=api, method="GET", path_model=name)


def opaque(
    *, path: str = "/files", method: str = "GET", query: str = "", headers: Headers | None = None, content: Any = None
) -> Request:
    return Request(
        operation=Operation.OPAQUE,
        dialect=DIALECT,
        method=method,
        relative_path=path,
        query=query,
        headers=headers or Headers(),
        content=content,
    )
