"""JSON Schemas as strict answers and strict tools take them."""

from __future__ import annotations

from typing import Any

import msgspec

from llmproxy_core.chat import JSONText
from llmproxy_core.wire import encode

# What the vendor's page on structured outputs names as not supported; the model is told in words instead.
_UNSUPPORTED = (
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "uniqueItems",
)
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf")
_DEEPEST = 64


def strict_schema(schema: JSONText) -> JSONText:
    """*schema* in the supported form; itself when it has it, or cannot be read."""
    try:
        value = msgspec.json.decode(schema)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return schema
    cleaned = _clean(value, 0)
    return schema if cleaned == value else encode(cleaned)


def _clean(value: Any, depth: int) -> Any:
    """*value*, a schema, with what is not supported moved into its description."""
    if not isinstance(value, dict) or depth > _DEEPEST:
        return value
    lost = {name: value[name] for name in _UNSUPPORTED if name in value}
    if isinstance(value.get("minItems"), int) and value["minItems"] > 1:
        lost["minItems"] = value["minItems"]
    schema = {name: each for name, each in value.items() if name not in lost}
    if "oneOf" in schema and "anyOf" not in schema:
        schema["anyOf"] = schema.pop("oneOf")
    for name in _MAPS:
        if isinstance(inner := schema.get(name), dict):
            schema[name] = {key: _clean(each, depth + 1) for key, each in inner.items()}
    for name in _LISTS:
        if isinstance(inner := schema.get(name), list):
            schema[name] = [_clean(each, depth + 1) for each in inner]
    if "items" in schema:
        schema["items"] = _clean(schema["items"], depth + 1)
    if schema.get("type") == "object" or "properties" in schema:
        schema["additionalProperties"] = False
    if lost:
        told = ", ".join(f"{name}: {msgspec.json.encode(each).decode()}" for name, each in lost.items())
        schema["description"] = " ".join(filter(None, [schema.get("description"), f"({told})"]))
    return schema
