"""What clients ask of each route: all its protocols and models in turn, streamed and plain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from urllib.parse import quote

import attrs

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.gateway import Gateway
from llmproxy_core.routing import Route
from llmproxy_server.cli_llm import reached

_OUTPUT_TOKENS = 256
_USUAL: Mapping[str, str] = FrozenMap(
    {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "mistral": "mistral-large-latest"}
)
"""The models that are asked for, by provider, where the configuration leaves that to the client."""
_USUAL_ELSEWHERE = "gpt-4o"


@attrs.frozen
class Question:
    """A call that a client can make of a route."""

    route: str
    dialect: Dialect
    api: Api
    path: str
    """With the query."""
    model: str
    stream: bool

    def body(self, number: int) -> bytes:
        """What is asked the *number*th time: another text each time, so that no cache has the answer."""
        text = f"Rehearsal, call {number}: what does a proxy do when a provider fails?"
        chat = ChatRequest(
            self.model,
            (Message("user", (TextPart(text),)),),
            stream=self.stream,
            max_output_tokens=_OUTPUT_TOKENS,
        )
        return self.dialect.write_chat(self.api, chat)


def questions(gateway: Gateway) -> Mapping[str, Sequence[Question]]:
    """What can be asked of each route, by name; nothing of one that serves no chat."""
    return {route.name: tuple(_of_route(route, gateway)) for route in gateway.routes}


def _of_route(route: Route, gateway: Gateway) -> Iterator[Question]:
    if Operation.CHAT not in route.chains:
        return
    forms = [
        it
        for it, allowed in ((True, route.config.allow_streaming), (False, route.config.allow_non_streaming))
        if allowed
    ]
    for model in _models(route, gateway):
        for dialect in route.dialects:
            for stream in forms:
                api = dialect.api_for(Operation.CHAT, stream=stream)
                path = None if api is None else _path(route, gateway, api, model)
                if api is not None and path is not None:
                    query = f"?{api.query}" if api.query else ""
                    yield Question(route.name, dialect, api, path + query, model, stream)


def _path(route: Route, gateway: Gateway, api: Api, model: str) -> str | None:
    """A path at which *route* serves *api*; None where its clients cannot reach it, or would be taken for others."""
    prefix = route.config.path_prefix.rstrip("/")
    dialect = next(dialect for dialect in route.dialects if api in dialect.apis)
    own = api.path.replace("{model}", quote(model, safe="" if "/" not in model else "/"))
    for suffix in (*(root + own for root in dialect.roots), own):
        begun = [size for size in range(1, len(suffix)) if prefix.endswith(suffix[:size]) and suffix[size] == "/"]
        path = prefix + suffix[max(begun, default=0) :]
        try:
            match = gateway.match(api.method, path)
        except ProxyError:
            continue
        meant = match.api is api or any(it.api is api for it in match.others if api.query)
        if match.route is route and meant:
            return path
    return None


def _models(route: Route, gateway: Gateway) -> Sequence[str]:
    """The models that its clients may name, as far as the configuration tells."""
    served = gateway.llms[route.config.target_llm].models
    if served.names:
        return served.names
    llms = [gateway.config.llms[name] for name in reached(route.config.target_llm, gateway.config.llms)]
    usual = next((_USUAL[llm.provider] for llm in llms if llm.provider in _USUAL), _USUAL_ELSEWHERE)
    globs = [asked for asked, _ in served.entries]
    if not globs or any(fnmatchcase(usual, each) for each in globs):
        return (usual,)
    return (globs[0].replace("*", "x").replace("?", "x"),)
