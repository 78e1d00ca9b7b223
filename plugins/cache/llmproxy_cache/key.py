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
from operator import itemgetter
from typing import Literal

import msgspec

from llmproxy_core import Exchange, Request, RouteView

_HOW_IT_IS_SENT = frozenset({"stream", "stream_options"})
"""Top-level members that change the form of an answer and not what it says."""
_IN_ORDER = msgspec.Raw(b"NaN")
"""What a list begins with that stands for an object's members in their order; no body holds it."""


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
        [exchange.layer.name, exchange.layer.depth],  # two caches of one route keep different things
        request.api.form,
        request.api.path.partition("{model}")[0],  # one name may be a model's in two collections
        request.operation.value,
        request.path_model,
        sorted(_influencing(request), key=itemgetter(0)),  # of one name they stay in their order
        request.influencing_query,
    ]
    try:
        digest = hashlib.sha256(msgspec.json.encode(parts))
    except UnicodeEncodeError as error:  # a header that is no text
        raise NotCacheable from error
    digest.update(b"\n")  # none stands in the parts, so that nothing of them can pass for the body
    digest.update(canonical(request.body))
    return digest.hexdigest()


def _influencing(request: Request) -> Iterator[tuple[str, str]]:
    assert request.dialect is not None
    names = request.dialect.influencing_headers
    if names is None:
        names = request.dialect.request_headers
    return ((name, value) for name, value in request.headers if name in names)


def canonical(body: bytes) -> bytes:
    """
    *body* in the one spelling that all bodies of its meaning have, less what says only how the answer is sent.

    The order of members does not count but in `properties`: models that answer by a JSON Schema follow it there.
    NotCacheable for a member that comes twice, anywhere: we would see the last and the provider perhaps the first, so
    that one question could be given the answer to another. For numbers and texts that not all programs can hold, too.
    """
    try:
        value = json.loads(body, object_pairs_hook=_members, parse_float=_finite, parse_constant=_finite)
        if not isinstance(value, dict):
            raise NotCacheable
        said = {name: it for name, it in value.items() if name not in _HOW_IT_IS_SENT}
        return msgspec.json.encode(said, order="sorted")
    except (ValueError, OverflowError, RecursionError) as error:
        raise NotCacheable from error


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise NotCacheable
    if isinstance(schema := members.get("properties"), dict):
        members["properties"] = [_IN_ORDER, *schema.items()]
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotCacheable
    return number
