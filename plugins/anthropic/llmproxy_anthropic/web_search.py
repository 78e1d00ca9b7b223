"""The search of the web, which other providers run too, as Anthropic's own tool."""

from __future__ import annotations

from llmproxy_core.chat import BuiltinTool
from llmproxy_core.wire import Changes, Members, Wire, bad_request, join_object, with_members

KINDS = frozenset({"googleSearch", "google_search", "web_search", "web_search_2025_08_26", "web_search_preview"})
"""What other protocols call it."""

_TOOL = b'{"type":"web_search_20250305","name":"web_search"}'
_OPENAI = "web_search"
_ADVICE = "search_context_size"
_SAY_NOTHING = (b"[]", b"{}")
_DEFAULTS = {"external_web_access": b"true", "search_content_types": b'["text"]'}


def write_search(tool: BuiltinTool, place: str, wire: Wire) -> bytes:
    """*tool*, one of KINDS. Unsupported for a limit of OpenAI's that has no form here, unless such are left out."""
    asked = Members(tool.raw.text, place, bad_request)
    if not tool.kind.startswith(_OPENAI):
        if (inner := asked.object(tool.kind)) is not None:
            wire.refuse_unknown(inner.rest(), inner.place)
        return _TOOL
    asked.raw("type")
    filters = asked.object("filters")
    domains = None if filters is None else filters.raw("allowed_domains")
    location = _location(asked)
    if asked.raw(_ADVICE) is not None and wire.translation is not None:
        wire.translation.advise(f"{place}.{_ADVICE}")
    for name, text in (asked.rest() | ({} if filters is None else filters.rest("filters."))).items():
        if text not in (*_SAY_NOTHING, _DEFAULTS.get(name)):
            wire.refuse(f"{place}.{name}", f"the {name} of a web search")
    changes: Changes = {"allowed_domains": domains if domains != b"[]" else None, "user_location": location}
    return with_members(_TOOL, changes)


def _location(asked: Members) -> bytes | None:
    """Where the user is, in the same words; what is null is not said."""
    said = asked.object("user_location")
    if said is None:
        return None
    members = said.rest()
    members.pop("type", None)
    return join_object({"type": b'"approximate"'} | members) if members else None
