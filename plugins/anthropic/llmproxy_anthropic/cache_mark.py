"""Marks of the prompt cache: `{"type": "ephemeral", "ttl": "5m"}`."""

from __future__ import annotations

from llmproxy_core.chat import CacheMark
from llmproxy_core.wire import STRING, Members, encode, join_object

CACHE = "cache_control"


def take_mark(members: Members) -> CacheMark | None:
    """Take `cache_control`; what else it says is left among *members*."""
    mark = members.object(CACHE)
    if mark is None:
        return None
    mark.raw("type")
    ttl = mark.take("ttl", STRING)
    members.keep(mark)
    return CacheMark(ttl)


def write_mark(mark: CacheMark | None) -> dict[str, bytes]:
    """The member for *mark*, none for None."""
    if mark is None:
        return {}
    ttl = {} if mark.ttl is None else {"ttl": encode(mark.ttl)}
    return {CACHE: join_object({"type": b'"ephemeral"'} | ttl)}
