"""Request paths as they stand on the wire: they are never normalised, what could mean two things is refused."""

from __future__ import annotations

import re

from llmproxy_core.errors import BadRequest

_AMBIGUOUS = re.compile(
    r"//"  # empty segments
    r"|/\.{1,2}(?:/|$)"  # dot segments
    r"|%2[eE]|%5[cC]|%00"  # the same, and backslash and NUL, in disguise
    r"|[^!-~]|[\\;#]"  # controls and what is no URL character, backslash, path parameters, the end of an URL's path
    r"|%(?![0-9a-fA-F]{2})"  # a percent sign that encodes nothing
)


def check_path(path: str) -> None:
    """BadRequest for a path that two readers could take for two places (RFC 3986 sections 5.2.4 and 6.2.2)."""
    if not path.startswith("/"):
        raise BadRequest("The request target must be a path", code="ambiguous_path")
    if _AMBIGUOUS.search(path):
        raise BadRequest(
            "The path is ambiguous: empty or dot segments, backslashes, semicolons, control characters and their "
            "encoded forms are refused",
            code="ambiguous_path",
        )


def check_encoded_slash(path: str, *, allowed: bool) -> None:
    """BadRequest for `%2F`, unless the route allows it, and then anywhere but in the last segment."""
    place = path.lower().find("%2f")
    if place < 0:
        return
    if not allowed:
        raise BadRequest(
            "The path contains an encoded slash, which this route does not allow (encoded_slash)",
            code="ambiguous_path",
        )
    if "/" in path[place:]:
        raise BadRequest("An encoded slash may stand in the last segment of the path only", code="ambiguous_path")


def begins(path: str, prefix: str) -> bool:
    """Whether *path* is *prefix* or below it, on whole segments."""
    return prefix in ("/", path) or path.startswith(prefix + "/")
