"""Model lists."""

from __future__ import annotations

from collections.abc import Iterable

from llmproxy_openai.splice import encode, join_array, join_object

_OWNER = "llmproxy"


def write_model_list(names: Iterable[str], created: int) -> bytes:
    """The list of *names*; *created* is seconds since the epoch."""
    return join_object({"object": b'"list"', "data": join_array(write_model(name, created) for name in names)})


def write_model(name: str, created: int) -> bytes:
    """One entry of the list."""
    return join_object(
        {"id": encode(name), "object": b'"model"', "created": encode(created), "owned_by": encode(_OWNER)}
    )
