"""What goes out in the body of a request: the client's own bytes, mended where they must be, or a translation."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.exchange import Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.translation import CHANGED_HEADER, Translation

_OWN_NAMES: Mapping[str, str] = FrozenMap()


def request_body(exchange: Exchange, config: HttpLLMConfig, dialect: Dialect, api: Api, sent: str | None) -> bytes:
    """
    The body that asks for the same in *api* of *dialect*, for the model that is *sent*.

    What a translation changes is noted in the exchange, for its client and the log. Unsupported: it cannot be said.
    """
    request, head = exchange.request, exchange.request.head
    streams = api.operation is Operation.CHAT and head.stream
    stream_off = streams and not config.supports_streaming
    ask_usage = streams and not stream_off and config.ask_usage
    own = request.api
    if own is not None and own.form == api.form:
        return request.render(
            dialect,
            api,
            model=None if sent == head.model else sent,
            stream=False if stream_off and api.streams is None else None,
            ask_usage=ask_usage and not head.wants_usage,
        )
    translation = _translation(exchange, config, sent)
    body = request.render(
        dialect,
        api,
        model=sent,
        stream=False if stream_off else None,
        ask_usage=ask_usage,
        translation=translation,
    )
    if translation.changes and exchange.client is not None:
        changed = translation.summary()
        exchange.response_headers.append((CHANGED_HEADER, changed))
        exchange.log_fields["changed"] = changed
    return body


def _translation(exchange: Exchange, config: HttpLLMConfig, sent: str | None) -> Translation:
    asking: Exchange | None = exchange
    while asking is not None and asking.client is None:
        asking = asking.parent  # a processor's own call is made for the client it works for
    client = None if asking is None else asking.client
    bounds = config.max_output_tokens
    return Translation(
        llm=config.name,
        drops=client is not None and client.drops_unsupported,
        max_output_tokens=next((it for name, it in bounds if sent is not None and fnmatchcase(sent, name)), None),
        names=_OWN_NAMES if client is None else client.dialect.field_names,
    )
