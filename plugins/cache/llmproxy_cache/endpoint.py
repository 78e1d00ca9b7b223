"""`DELETE /api/cache`: all, or by model, or by key."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

import msgspec

from llmproxy_cache.processor import Cache
from llmproxy_core import BadRequest, Endpoint, EndpointReply, EndpointRequest

PATH = "/api/cache"


def purge_endpoint() -> Endpoint:
    return Endpoint("DELETE", PATH, purge, local_only=True, merge=merged)


def merged(replies: Sequence[EndpointReply]) -> EndpointReply:
    """What all workers forgot together; the refusal of one that could not, for its part is still there."""
    for reply in replies:
        if reply.status != 200:
            return reply
    deleted = sum(msgspec.json.decode(reply.body, type=dict[str, int])["deleted"] for reply in replies)
    return EndpointReply(msgspec.json.encode({"deleted": deleted}))


async def purge(request: EndpointRequest) -> EndpointReply:
    """
    Forget answers: all of them, with `?model=NAME` those of a model, with `?key=KEY` one.

    Answers `{"deleted": N}`. BadRequest for any other parameter, so that a slip of the pen does not empty the cache.
    """
    try:
        said = parse_qs(request.query, keep_blank_values=True, strict_parsing=bool(request.query), max_num_fields=8)
    except ValueError as error:
        raise BadRequest("The query string cannot be read") from error
    values = {name: found[0] for name, found in said.items() if len(found) == 1 and found[0]}
    if set(values) - {"model", "key"} or len(values) != len(said) or len(values) > 1:
        raise BadRequest("Expected nothing, model=NAME or key=KEY", param="query")
    caches = [it for it in request.processors("cache") if isinstance(it, Cache)]
    deleted = sum([await cache.purge(model=values.get("model"), key=values.get("key")) for cache in caches])
    return EndpointReply(msgspec.json.encode({"deleted": deleted}))
