"""Model lists with what Mistral's clients read in them."""

from __future__ import annotations

from collections.abc import Iterable

from llmproxy_core import ModelInfo
from llmproxy_core.wire import INTEGER, STRING, Members, encode, garbage, join_array, join_object

_OWNER = "llmproxy"
_CAN = dict.fromkeys(("completion_chat", "function_calling", "vision"), True)
"""Clients require an answer; which of it a model can do, nobody here knows."""


def write_list(models: Iterable[ModelInfo]) -> bytes:
    """The list of *models*."""
    return join_object({"object": b'"list"', "data": join_array(map(write_model, models))})


def write_model(model: ModelInfo) -> bytes:
    """One entry of the list."""
    members = {
        "id": encode(model.id),
        "object": b'"model"',
        "created": encode(model.created or 0),
        "owned_by": encode(model.owner or _OWNER),
        "capabilities": encode(_CAN),
        "type": b'"base"',
    }
    if model.name is not None:
        members["name"] = encode(model.name)
    if model.input_limit is not None:
        members["max_context_length"] = encode(model.input_limit)
    return join_object(members)


def read(body: bytes) -> list[ModelInfo]:
    """The entries of a list, or the one entry that *body* is."""
    members = Members(body, "", garbage)
    if members.peek("data") is None:
        return [_read(members)]
    return [_read(Members(text, f"data[{place}]", garbage)) for place, text in enumerate(members.array("data"))]


def _read(members: Members) -> ModelInfo:
    return ModelInfo(
        members.need("id", STRING),
        name=members.take("name", STRING),
        created=members.take("created", INTEGER),
        owner=members.take("owned_by", STRING),
        input_limit=members.take("max_context_length", INTEGER),
    )
