"""Marks of the prompt cache: `{"type": "ephemeral", "ttl": "5m"}`."""

from __future__ import annotations

from llmproxy_core.chat import CacheMark
from llmproxy_core.wire import STRING, Members, encode, join_object


def take_mark(members: Members) -> CacheMark | None:
    """Take `cache_control`; what else it says is kept by the bytes it stands in."""
    mark = members.object("cache_control")
    return None if mark is None else CacheMark(mark.take("ttl", STRING))


def write_mark(mark: CacheMark | None) -> dict[str, bytes]:
    """The member for *mark*, none for None."""
    if mark is None:
        return {}
    ttl = {} if mark.ttl is None else {"ttl": encode(mark.ttl)}
    return {"cache_control": join_object({"type": b'"ephemeral"'} | ttl)}
