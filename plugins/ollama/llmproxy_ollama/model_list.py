"""The list of models: `{"models": [{"name", "model", "modified_at"}]}`."""

from collections.abc import Sequence

from llmproxy_core import ModelInfo
from llmproxy_core.wire import STRING, Members, encode, garbage, join_array, join_object
from llmproxy_ollama.when import read_time, write_time


def read_models(body: bytes) -> list[ModelInfo]:
    return [_read(text) for text in Members(body, "", garbage).array("models")]


def _read(text: bytes) -> ModelInfo:
    members = Members(text, "models", garbage)
    name = members.take("name", STRING)
    model = members.take("model", STRING) or name
    if model is None:
        raise garbage("models.model", "a string")
    return ModelInfo(model, name, read_time(members.take("modified_at", STRING)))


def write_models(models: Sequence[ModelInfo]) -> bytes:
    return join_object({"models": join_array([_write(model) for model in models])})


def _write(model: ModelInfo) -> bytes:
    time = None if model.created is None else write_time(model.created)
    members = {"name": encode(model.id), "model": encode(model.id)}
    return join_object(members | ({} if time is None else {"modified_at": encode(time)}))
