"""Model lists."""

from __future__ import annotations

from collections.abc import Iterable

from llmproxy_core.model_list import ModelInfo
from llmproxy_core.wire import INTEGER, STRING, Members, encode, garbage, join_array, join_object

_OWNER = "llmproxy"


def write_model_list(models: Iterable[ModelInfo]) -> bytes:
    """The list of *models*."""
    return join_object({"object": b'"list"', "data": join_array(map(write_model, models))})


def write_model(model: ModelInfo) -> bytes:
    """One entry of the list."""
    return join_object(
        {
            "id": encode(model.id),
            "object": b'"model"',
            "created": encode(model.created or 0),
            "owned_by": encode(model.owner or _OWNER),
        }
    )


def read_models(body: bytes) -> list[ModelInfo]:
    """The entries of a list, or the one entry that *body* is."""
    members = Members(body, "", garbage)
    if members.peek("data") is None:
        return [_read(members)]
    return [_read(Members(text, f"data[{place}]", garbage)) for place, text in enumerate(members.array("data"))]


def _read(members: Members) -> ModelInfo:
    return ModelInfo(
        members.need("id", STRING),
        name=members.take("name", STRING),  # OpenRouter's
        created=members.take("created", INTEGER),
        owner=members.take("owned_by", STRING),
        input_limit=members.take("context_length", INTEGER),
    )
