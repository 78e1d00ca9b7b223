"""As much of JSON Schema (draft 7) as `llmproxy schema` writes, to hold the schema against documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
ANNOTATIONS = {"description", "default", "examples", "title", "$schema"}


def mistakes(schema: Mapping[str, Any], value: object) -> Iterator[str]:
    """Where and why *value* breaks *schema*. AssertionError for a keyword that is not known here."""
    yield from broken(written_out(schema), value)


def written_out(schema: Mapping[str, Any]) -> dict[str, Any]:
    """*schema* with what `$ref` refers to in its place. AssertionError where something stands beside a `$ref`."""
    definitions = {f"#/$defs/{name}": each for name, each in schema.get("$defs", {}).items()}

    def put(part: Any) -> Any:
        if isinstance(part, list):
            return [put(each) for each in part]
        if not isinstance(part, dict):
            return part
        if isinstance(part.get("$ref"), str):
            assert len(part) == 1, f"editors pass over what stands beside {part['$ref']}"
            return put(definitions[part["$ref"]])
        return {name: put(each) for name, each in part.items()}

    return {name: put(each) for name, each in schema.items() if name != "$defs"}


def broken(schema: Mapping[str, Any], value: object, place: str = "") -> Iterator[str]:
    """`mistakes` of a *schema* without references."""
    for keyword, rule in schema.items():
        if keyword in ANNOTATIONS or keyword in ("then", "additionalProperties"):
            continue
        check = CHECKS.get(keyword)
        assert check is not None, f"{keyword} is not checked"
        yield from check(rule, value, schema, place)


def is_type(name: str, value: object) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def check_type(rule: Any, value: object, schema: Any, place: str) -> Iterator[str]:
    names = rule if isinstance(rule, list) else [rule]
    if not any(is_type(name, value) for name in names):
        yield f"{place}: not {rule}"


def check_properties(rule: Any, value: Any, schema: Any, place: str) -> Iterator[str]:
    for key, it in value.items() if isinstance(value, dict) else ():
        if key in rule:
            yield from broken(rule[key], it, f"{place}.{key}")


def check_object(rule: Any, value: Any, schema: Any, place: str) -> Iterator[str]:
    """`type: object` carries `additionalProperties`, which depends on `properties`."""
    yield from check_type(rule, value, schema, place)
    extra = schema.get("additionalProperties", True)
    for key, it in value.items() if isinstance(value, dict) else ():
        if key in schema.get("properties", {}):
            continue
        if extra is False:
            yield f"{place}.{key}: unknown"
        elif isinstance(extra, dict):
            yield from broken(extra, it, f"{place}.{key}")


def check_required(rule: Any, value: Any, schema: Any, place: str) -> Iterator[str]:
    yield from (f"{place}.{key}: missing" for key in rule if isinstance(value, dict) and key not in value)


def check_items(rule: Any, value: Any, schema: Any, place: str) -> Iterator[str]:
    for index, it in enumerate(value) if isinstance(value, list) else ():
        yield from broken(rule, it, f"{place}[{index + 1}]")


def check_all(rule: Any, value: Any, schema: Any, place: str) -> Iterator[str]:
    for part in rule:
        if not list(broken(part["if"], value, place)):
            yield from broken(part["then"], value, place)


def check_any(rule: Any, value: Any, schema: Any, place: str) -> Iterator[str]:
    if all(list(broken(part, value, place)) for part in rule):
        yield f"{place}: none of the alternatives"


def simple(holds: Any) -> Any:
    def check(rule: Any, value: Any, schema: Any, place: str) -> Iterator[str]:
        if not holds(rule, value):
            yield f"{place}: {rule}"

    return check


CHECKS: dict[str, Any] = {
    "type": check_object,
    "properties": check_properties,
    "required": check_required,
    "items": check_items,
    "allOf": check_all,
    "anyOf": check_any,
    "enum": simple(lambda rule, value: value in rule),
    "const": simple(lambda rule, value: value == rule),
    "minimum": simple(lambda rule, value: value >= rule),
    "maximum": simple(lambda rule, value: value <= rule),
    "exclusiveMinimum": simple(lambda rule, value: value > rule),
    "minLength": simple(lambda rule, value: len(value) >= rule),
    "minItems": simple(lambda rule, value: len(value) >= rule),
    "pattern": simple(lambda rule, value: re.search(rule, value) is not None),
}
