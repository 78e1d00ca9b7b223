"""The URL of an upstream call: where an LLM's API is, and what of the client's query goes on."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

from llmproxy_core.dialect import Dialect
from llmproxy_core.errors import BadRequest
from llmproxy_core.request import is_credential


def base_url(configured: str, dialect: Dialect) -> str:
    """
    The URL that relative paths are put behind.

    A base URL without any path gets the dialect's version segment: `http://localhost:11434` means its `/v1`; so does
    one with a path that does not end in it, where the dialect's SDKs add it themselves.
    """
    base = configured.rstrip("/")
    if not urlsplit(base).path or not (dialect.versioned_base or base.endswith(dialect.roots)):
        return base + dialect.roots[0]
    return base


def without_credentials(query: str) -> str:
    """*query* as it came, less what clients present as their key: the caller's credentials never leave."""
    kept = [field for field in query.split("&") if not is_credential(field)]
    return f"?{text}" if (text := "&".join(kept)) else ""


def allowed_query(query: str, allowed: frozenset[str]) -> str:
    if not query or not allowed:
        return ""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise BadRequest("The query string has too many fields") from error
    kept = [(name, value) for name, value in pairs if name in allowed]
    return "?" + urlencode(kept) if kept else ""
