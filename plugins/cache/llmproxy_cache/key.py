"""
What makes two requests the same.

A key covers everything that could change the answer, and who may see it: a cache that mistakes two requests for one
hands out the wrong answer, or somebody else's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Literal

from llmproxy_core import Exchange, Request, RouteView

_HOW_IT_IS_SENT = frozenset({"stream", "stream_options"})
"""Top-level members that change the form of an answer and not what it says."""


class NotCacheable(Exception):
    """Nobody can be sure what this request means, so no answer to it is kept."""


def key_of(exchange: Exchange, route: RouteView, share: Literal["caller", "tenant"]) -> str:
    """The key of *exchange* on *route*, 64 hexadecimal digits; NotCacheable when it has none."""
    request, caller = exchange.request, exchange.caller
    if request.dialect is None or request.api is None:
        raise NotCacheable
    parts: list[object] = [
        caller.tenant,
        caller.name if share == "caller" else None,
        route.fingerprint,  # the LLM, and every processor that stands between the cache and it
        request.api.name,
        request.operation.value,
        request.path_model,
        sorted(_influencing(request)),
        request.query,
        canonical(request.body),
    ]
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _influencing(request: Request) -> Iterator[tuple[str, str]]:
    assert request.dialect is not None
    names = request.dialect.influencing_headers
    if names is None:
        names = request.dialect.request_headers
    return ((name, value) for name, value in request.headers if name in names)


def canonical(body: bytes) -> str:
    """
    *body* in the one spelling that all bodies of its meaning have, less what says only how the answer is sent.

    NotCacheable for a member that comes twice, anywhere: we would see the last and the provider perhaps the first, so
    that one question could be given the answer to another. For a number that no double holds, too.
    """
    try:
        value = json.loads(body, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise NotCacheable from error
    if not isinstance(value, dict):
        raise NotCacheable
    said = {name: it for name, it in value.items() if name not in _HOW_IT_IS_SENT}
    return json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise NotCacheable
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotCacheable
    return number
