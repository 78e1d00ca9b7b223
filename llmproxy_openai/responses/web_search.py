"""The search of the web, which other providers run too, as OpenAI's own tool."""

from __future__ import annotations

from llmproxy_core.chat import BuiltinTool, Raw
from llmproxy_core.wire import STRING, STRINGS, Members, Wire, bad_request, encode, join_object

_GOOGLE = frozenset({"googleSearch", "google_search"})
_OWN = "web_search"
_SAYS_NOTHING = ("type", "name", "cache_control")


def is_search(tool: BuiltinTool) -> bool:
    """Whether *tool* is a search, whoever runs it."""
    return tool.kind in _GOOGLE or tool.kind.startswith(_OWN)


def write_search(tool: BuiltinTool, place: str, wire: Wire) -> BuiltinTool:
    """
    *tool* of another provider, which `is_search`; where it searches, and for whom, is kept.

    Its other limits are refused, or left out; BadRequest for members of a wrong type.
    """
    asked = Members(tool.raw.text, place, bad_request)
    members = {"type": encode(_OWN)}
    if tool.kind in _GOOGLE:
        asked = asked.object(tool.kind) or Members(b"{}", place, bad_request)
    else:
        members |= _limits(asked, wire)
    wire.refuse_unknown(asked.rest(), asked.place)
    wire.convert(place, "converted")
    return BuiltinTool(_OWN, Raw(wire.api, join_object(members)))


def _limits(asked: Members, wire: Wire) -> dict[str, bytes]:
    """What both say of a search: Anthropic beside its type, OpenAI's kin partly in `filters`."""
    for name in _SAYS_NOTHING:
        asked.raw(name)
    domains: list[str] | None = asked.take("allowed_domains", STRINGS)
    filters, location = asked.object("filters"), asked.object("user_location")
    if filters is not None:
        inner: list[str] | None = filters.take("allowed_domains", STRINGS)
        domains = inner or domains
        wire.refuse_unknown(filters.rest(), filters.place)
    size = asked.take("search_context_size", STRING)
    members = {} if not domains else {"filters": join_object({"allowed_domains": encode(domains)})}
    if location is not None and (where := location.rest()):
        members["user_location"] = join_object({"type": b'"approximate"', **where})
    return members if size is None else members | {"search_context_size": encode(size)}
