"""Model lists."""

from __future__ import annotations

from collections.abc import Iterable

from llmproxy_core import ModelInfo
from llmproxy_core.wire import INTEGER, STRING, Members, encode, garbage, join_array, join_object
from llmproxy_gemini.model_kind import bare
from llmproxy_gemini.request import named

_METHODS = b'["generateContent","countTokens"]'


def read_models(body: bytes) -> list[ModelInfo]:
    """The entries of a list, or the one entry that *body* is."""
    members = Members(body, "", garbage)
    if members.peek("models") is not None:
        return [_read(Members(text, f"models[{place}]", garbage)) for place, text in enumerate(members.array("models"))]
    return [_read(members)] if members.peek("name") is not None else []


def _read(members: Members) -> ModelInfo:
    return ModelInfo(
        bare(members.need("name", STRING)),
        name=members.take("displayName", STRING),
        input_limit=members.take("inputTokenLimit", INTEGER),
        output_limit=members.take("outputTokenLimit", INTEGER),
    )


def write_models(models: Iterable[ModelInfo]) -> bytes:
    """The list of *models*, its last page."""
    return join_object({"models": join_array(map(write_model, models))})


def write_model(model: ModelInfo) -> bytes:
    """One entry of the list."""
    members = {
        "name": named(model.id),
        "baseModelId": encode(model.id),
        "version": b'""',
        "displayName": encode(model.name or model.id),
    }
    if model.input_limit is not None:
        members["inputTokenLimit"] = encode(model.input_limit)
    if model.output_limit is not None:
        members["outputTokenLimit"] = encode(model.output_limit)
    return join_object(members | {"supportedGenerationMethods": _METHODS})
