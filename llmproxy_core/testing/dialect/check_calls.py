"""The calls themselves: where they go, what they carry, and that no key is where it should not be."""

from __future__ import annotations

import re

from llmproxy_core.headers import HOP_BY_HOP, Headers
from llmproxy_core.secret import Secret
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.verdict import NotConforming

_KEY = "the-canary-key-of-the-house"
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key"})
_QUERY_CREDENTIALS = frozenset({"key", "api_key", "api-key", "access_token"})
_NEVER_CROSSES = HOP_BY_HOP | {"set-cookie", "content-length", "content-encoding", "content-type", "date", "server"}
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_MODEL = "family/model-1:latest"


def is_found_at_its_paths(declared: DeclaredDialect) -> None:
    """Each API is found at its path, behind the version root and behind any prefix of a route; nowhere else."""
    dialect = declared.dialect
    names = [api.name for api in dialect.apis]
    if len(set(names)) < len(names):
        raise NotConforming(f"two APIs have one name: {', '.join(names)}")
    for api in dialect.apis:
        path = api.path.replace("{model}", _MODEL)
        for root in dialect.roots:
            for prefix in ("", "/team/a"):
                found = dialect.locate(f"{prefix}{root}{path}")
                if not any(it.api is api and it.start == len(prefix) for it in found):
                    raise NotConforming(
                        f"{api.name}: it is not found at {prefix}{root}{path}; `roots` or `path` is wrong"
                    )
                if "{model}" in api.path and not any(it.api is api and it.model == _MODEL for it in found):
                    raise NotConforming(f"{api.name}: the model in {root}{path} is not found")
    if found := dialect.locate("/some/where/else"):
        raise NotConforming(f"{found[0].api.name} is found at /some/where/else")
    for api in dialect.apis:
        if dialect.claims(api, Headers([("user-agent", "curl/8"), ("content-type", "application/json")]), ""):
            raise NotConforming(f"{api.name}: `claims` takes a request that says nothing of whose it is")


def keeps_keys_in_headers(declared: DeclaredDialect) -> None:
    """Our key is in the headers that `auth_headers` makes and nowhere else; no client's key goes on."""
    dialect = declared.dialect
    ours = dialect.auth_headers(Secret(_KEY))
    if not any(_KEY in value for _, value in ours):
        raise NotConforming("auth_headers does not present the key: `key.reveal()` gives its text")
    for name, value in [*ours, *dialect.constant_headers(), *dialect.default_headers()]:
        if not _HEADER_NAME(name) or not value.isascii() or not value.isprintable():
            raise NotConforming(f"the header {name!r}: names are small letters, values one line of ASCII")
    elsewhere = [*dialect.constant_headers(), *dialect.default_headers(), *vars(dialect).items()]
    if any(_KEY in str(value) for _, value in elsewhere):
        raise NotConforming("the key stays with the dialect, which all calls share: make its headers, and forget it")
    keys = _CREDENTIALS | {name for name, _ in ours}
    if found := sorted(dialect.request_headers & keys):
        raise NotConforming(f"`request_headers` sends the client's own key to the provider: {', '.join(found)}")
    for api in dialect.apis:
        if _KEY in api.path or any(f"{name}=" in api.query for name in _QUERY_CREDENTIALS):
            raise NotConforming(f"{api.name}: a key belongs into a header, never into a URL")


def lets_the_right_headers_cross(declared: DeclaredDialect) -> None:
    """Of the provider's headers those cross to the client that it reads; never those of a connection or a body."""
    dialect = declared.dialect
    named = dialect.request_headers | dialect.response_headers | (dialect.influencing_headers or frozenset())
    if wrong := sorted(name for name in named if name != name.lower()):
        raise NotConforming(f"headers are named in small letters: {', '.join(wrong)}")
    if crossing := sorted(name for name in _NEVER_CROSSES if dialect.crosses(name)):
        raise NotConforming(f"these belong to the connection or the body, and must not cross: {', '.join(crossing)}")
    if not dialect.crosses("retry-after"):
        raise NotConforming("retry-after must cross: clients wait as long as it says")
    if dialect.influencing_headers is not None and not dialect.influencing_headers <= dialect.request_headers:
        raise NotConforming("`influencing_headers` names headers that `request_headers` does not send on")
