"""Where a matched request would end up: found by sending one into a gateway whose transport opens nothing."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import msgspec

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError, RouteNotFound, UpstreamConnectError
from llmproxy_core.exchange import Exchange
from llmproxy_core.gateway import Gateway, ModelList
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.groups.by_model import ByModel
from llmproxy_core.groups.layers import layers
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.model_map import ModelMap
from llmproxy_core.request import Request
from llmproxy_core.routing import Match
from llmproxy_server.cli_exit import counted
from llmproxy_server.cli_load import LookTransport


@attrs.frozen(kw_only=True)
class Asked:
    """The request that is explained, less its body. *model* is what its body would name."""

    method: str
    path: str
    query: str
    model: str | None


@attrs.frozen(kw_only=True)
class Destination:
    """
    Where a request ends.

    *hops* are the LLMs that it goes through, as (name, provider). *upstream* is the URL that is called, with the
    method, or in words why there is none. *error* is what the client gets when nothing serves the request.
    """

    hops: tuple[tuple[str, str], ...] = ()
    asked: str | None = None
    sent: str | None = None
    upstream: str | None = None
    error: ProxyError | None = None


async def destination(gateway: Gateway, transport: LookTransport, match: Match, asked: Asked) -> Destination:
    """Where *asked* ends, once its route's processors have let it through as it is."""
    model = None if match.api is None else match.path_model or asked.model  # nobody reads an opaque body
    async with gateway.begin(match, _request(match, asked), request_id="explain") as exchange:
        if match.operation is Operation.MODELS and match.route.llm.models.listed:
            return await _listed(match, exchange)
        names = list(_walk(gateway, match.route.config.target_llm, model))
        hops = tuple((name, gateway.config.llms[name].provider) for name in names)
        last = gateway.config.llms[names[-1]]
        nobody = _chooser(gateway.llms[names[-1]]) is not None  # it would have chosen a member
        if isinstance(last, HttpLLMConfig) or (nobody and (model is not None or match.api is None)):
            return attrs.evolve(await _tried(match, exchange, transport), hops=hops, asked=model)
        if isinstance(last, GroupConfig):
            members = ", ".join(last.members)
            advice = ": say the request's model with --model" if nobody else ""
            return Destination(hops=hops, asked=model, upstream=f"one of {members}{advice}")
        sent = gateway.llms[names[-1]].models.sent(model) if model is not None else last.model
        if model is not None and sent is None:
            error = RouteNotFound(f"No LLM here serves the model {model[:128]!r}", code="model_not_found")
            return Destination(hops=hops, asked=model, error=error)
        return Destination(hops=hops, asked=model, sent=sent, upstream=f"none: {last.provider} answers by itself")


def _request(match: Match, asked: Asked) -> Request:
    """A small request of the matched form. A conversation is written by the dialect, whatever that is."""
    chat, body = None, None
    if match.operation is Operation.CHAT:
        question = Message("user", (TextPart("?"),))
        streamed = not match.route.config.allow_non_streaming
        chat = ChatRequest(match.path_model or asked.model, (question,), stream=streamed)
    elif match.api is not None and match.api.has_body:
        body = msgspec.json.encode({} if asked.model is None else {"model": asked.model})
    return Request(
        operation=match.operation,
        dialect=match.dialect,
        api=match.api,
        method=asked.method,
        path=asked.path,
        query=asked.query,
        body=body,
        chat=chat,
        path_model=match.path_model,
        relative_path=match.relative_path,
    )


def _walk(gateway: Gateway, name: str, model: str | None) -> Iterator[str]:
    """The LLM *name*, and what it chooses among its members, as far as *model* decides it."""
    while True:
        yield name
        llm, config = _chooser(gateway.llms[name]), gateway.config.llms[name]
        if llm is None:
            return
        model = ModelMap(config.models, config.model).sent(model) if model is not None else config.model
        member = llm.pick(model) if model is not None else None
        if member is None:
            return
        name = next(name for name, it in gateway.llms.items() if it is member)


def _chooser(llm: LLMClient) -> ByModel | None:
    return next((layer for layer in layers(llm) if isinstance(layer, ByModel)), None)


async def _listed(match: Match, exchange: Exchange) -> Destination:
    models = match.route.llm.models
    try:
        await ModelList(match.route.llm, 0)(exchange)
    except ProxyError as error:
        return Destination(asked=match.path_model, error=error)
    return Destination(upstream=f"none: the configuration lists {counted(len(models.names), 'model')}")


async def _tried(match: Match, exchange: Exchange, transport: LookTransport) -> Destination:
    """Send it, see what reaches the transport."""
    try:
        await match.route.llm.send(exchange)
    except UpstreamConnectError as error:
        if not transport.requests:
            return Destination(error=error)
    except ProxyError as error:
        return Destination(error=error)
    if not transport.requests:
        return Destination(upstream="none: it answers by itself")
    request = transport.requests[0]
    return Destination(sent=exchange.attempts[0].model, upstream=f"{request.method} {request.url}")


__all__ = ["Asked", "Destination", "destination"]
