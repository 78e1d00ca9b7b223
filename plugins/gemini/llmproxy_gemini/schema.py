"""The schemas of Google's older form, as JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llmproxy_core import ProxyError
from llmproxy_core.chat import JSONText

_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_LISTS = ("anyOf", "any_of", "prefixItems")
_ONES = ("items", "additionalProperties")
_OTHER_SPELLING = {
    "any_of": "anyOf",
    "min_items": "minItems",
    "max_items": "maxItems",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_properties": "minProperties",
    "max_properties": "maxProperties",
}
_UNKNOWN_ELSEWHERE = frozenset({"propertyOrdering", "property_ordering", "nullable"})


def to_json_schema(text: JSONText, place: str, fail: Callable[[str, str], ProxyError]) -> JSONText:
    """
    *text*, a subset of OpenAPI's schemas with types in capitals, in the form that all others take.

    What is JSON Schema already stays as it is, byte for byte.
    """
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise fail(place, "a schema") from error
    if not isinstance(schema, dict):
        raise fail(place, "an object")
    converted = _converted(schema)
    return text if converted == schema else msgspec.json.encode(converted)


def _converted(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for written, value in schema.items():
        name = _OTHER_SPELLING.get(written, written)
        if name in _UNKNOWN_ELSEWHERE:
            continue
        if name == "type" and isinstance(value, str):
            value = value.lower()
        elif name in _COUNTS and isinstance(value, str) and value.isdigit():
            value = int(value)  # 64-bit numbers are text in Google's JSON
        elif name in _ONES and isinstance(value, dict):
            value = _converted(value)
        elif name in _LISTS and isinstance(value, list):
            value = [_converted(each) if isinstance(each, dict) else each for each in value]
        elif name == "properties" and isinstance(value, dict):
            value = {key: _converted(each) if isinstance(each, dict) else each for key, each in value.items()}
        found[name] = value
    if isinstance(found.get("properties"), dict):
        found["properties"] = _ordered(found["properties"], schema)
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def _ordered(properties: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """*properties* as *schema* orders them, which others tell by where they stand; those that it does not name last."""
    named = schema.get("propertyOrdering") or schema.get("property_ordering")
    first = [name for name in named if isinstance(name, str) and name in properties] if isinstance(named, list) else []
    return {name: properties[name] for name in dict.fromkeys([*first, *properties])}
