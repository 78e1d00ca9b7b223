"""The URL of an upstream call: where an LLM's API is, and what of the client's query goes on."""

from __future__ import annotations

from urllib.parse import unquote_plus, urlsplit

from llmproxy_core.dialect import Api, Dialect
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


def passed_query(query: str, asked: Api, api: Api, ours: str) -> str:
    """
    What of the client's *query* goes on to a provider that speaks as it does, as it stands and in its order.

    All of it, known to us or not, but the client's credentials, what chooses the form of the answer (of *asked*, while
    *api* is what is called), and members that *ours*, the configuration's part of the query, has too.
    """
    set_here = {_name(field) for part in (asked.query, api.query, ours) if part for field in part.split("&")}
    kept = [
        field
        for field in query.split("&")
        if field and (field == api.query or not (_name(field) in set_here or is_credential(field)))
    ]
    if api.query and api.query not in kept:
        kept.insert(0, api.query)
    return "&".join([*kept, ours] if ours else kept)


def _name(field: str) -> str:
    """Google reads its own members with a `$` before them too."""
    return unquote_plus(field.partition("=")[0]).removeprefix("$")
