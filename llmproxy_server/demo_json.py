"""
JSON that fits a JSON Schema, made without chance: what the demo LLM calls tools with and answers in.

Of JSON Schema it knows types, required members, enum, const, local $ref, allOf, the first of anyOf and oneOf, the
bounds of numbers, lengths and arrays, and the common formats; not pattern, not, if, dependencies, contains and
uniqueItems.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from llmproxy_core.chat import JSONText

_MAX_VALUES = 1_000  # of one answer: a small schema may ask for lists of lists of lists
_MAX_DEPTH = 16
_MAX_LENGTH = 1_000  # of a text that minLength pads
_MAX_ITEMS = 100
_MAX_NUMBER = 2**53  # the integers that every JSON parser keeps exactly
_FINEST = 1e-9  # of multipleOf

_FORMATS = {
    "date": "2025-01-31",
    "date-time": "2025-01-31T12:00:00Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "12:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def arguments(schema: JSONText | None, phrase: str) -> str:
    """JSON text of an object that fits *schema*, the parameters of a tool; its texts are made of *phrase*."""
    value = _Maker(_read(schema), phrase).make()
    return _write(value if isinstance(value, dict) else {})


def document(schema: JSONText | None, phrase: str) -> str:
    """JSON text of any kind that fits *schema*; without a schema an object of one text, *phrase*."""
    root = _read(schema)
    return _write({"answer": phrase} if root in ({}, True) else _Maker(root, phrase).make())


def _read(schema: JSONText | None) -> Any:
    return {} if schema is None else msgspec.json.decode(schema)


def _write(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class _Maker:
    """Makes one value. Whatever the schema says, it ends: after so much, or so deep, all that follows is empty."""

    def __init__(self, root: Any, phrase: str) -> None:
        self._root = root
        self._phrase = phrase
        self._left = _MAX_VALUES

    def make(self) -> Any:
        return self._make(self._root, 0)

    def _make(self, schema: Any, depth: int) -> Any:
        whole = self._whole(schema, depth)
        for given in [whole["const"]] if "const" in whole else _list(whole.get("enum")):
            self._spend(len(msgspec.json.encode(given)))
            return given
        match _type(whole):
            case "object":
                return self._object(whole, depth)
            case "array":
                return self._array(whole, depth)
            case "integer" | "number" as kind:
                return _number(whole, whole=kind == "integer")
            case "boolean" | "null" as kind:
                return True if kind == "boolean" else None
            case _:
                return _text(whole, self._phrase)

    def _spend(self, size_bytes: int) -> None:
        """What a schema writes out itself counts too: a list may repeat it."""
        self._left -= 1 + size_bytes // 100

    def _whole(self, schema: Any, depth: int) -> dict[str, Any]:
        """*schema* with what it refers to and is made of in one object."""
        self._spend(0)
        whole: dict[str, Any] = dict(schema) if isinstance(schema, dict) else {}
        if depth > _MAX_DEPTH or self._left < 0:
            return {"type": _type(whole)}
        parts: list[Any] = []
        if isinstance(place := whole.pop("$ref", None), str):
            parts.append(self._at(place))
        parts += _list(whole.pop("allOf", None))
        for name in ("anyOf", "oneOf"):
            if choices := _list(whole.pop(name, None)):
                parts.append(_chosen(choices, depth))
        for part in parts:
            whole = _merged(self._whole(part, depth + 1), whole)
        return whole

    def _at(self, place: str) -> Any:
        """What stands at *place* (`#/$defs/Name`, RFC 6901 in a fragment) of the same schema; {} for another place."""
        found = self._root
        for step in place.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        return found if place.startswith("#") else {}

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """The required members; at the top of a schema that requires none, all."""
        properties = schema.get("properties")
        known: dict[str, Any] = properties if isinstance(properties, dict) else {}
        names = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        if not names and depth == 0:
            names = list(known)
        rest = schema.get("additionalProperties")
        made = {}
        for name in names:
            self._spend(len(name))
            if self._left > 0:
                made[name] = self._make(known.get(name, rest), depth + 1)
        return made

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        first = _list(schema.get("prefixItems"))
        rest = schema.get("items")
        fewest, most = _bound(schema, "minItems", 0), _bound(schema, "maxItems", _MAX_ITEMS)
        count = int(min(max(fewest, len(first) or 1), most, _MAX_ITEMS))
        if rest is False:
            count = min(count, len(first))
        schemas = [*first, *[rest] * count][:count]
        return [self._make(each, depth + 1) for each in schemas if self._left > 0]


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _chosen(choices: list[Any], depth: int) -> Any:
    """The first choice; deeper down the first without a reference, so that what refers to itself comes to an end."""
    if depth > 1:
        return next((each for each in choices if not (isinstance(each, dict) and "$ref" in each)), choices[0])
    return choices[0]


def _merged(part: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Both at once: members and requirements add up, for the rest *whole* has the last word."""
    both = part | whole
    if isinstance(mine := part.get("properties"), dict) and isinstance(theirs := whole.get("properties"), dict):
        both["properties"] = mine | theirs
    if isinstance(mine := part.get("required"), list) and isinstance(theirs := whole.get("required"), list):
        both["required"] = mine + theirs
    return both


def _type(schema: dict[str, Any]) -> str:
    """The type, the first but null of several; where none is given, what the other keywords speak of."""
    said = schema.get("type")
    types = [each for each in (said if isinstance(said, list) else [said]) if isinstance(each, str)]
    if types:
        return next((each for each in types if each != "null"), "null")
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _bound(schema: dict[str, Any], name: str, default: float) -> float:
    found = schema.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return default
    return min(max(found, -_MAX_NUMBER), _MAX_NUMBER)


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    """1, or where the bounds forbid it a number near it; 1 too where no number fits."""
    lowest = max(_bound(schema, name, -_MAX_NUMBER) for name in ("minimum", "exclusiveMinimum"))
    highest = min(_bound(schema, name, _MAX_NUMBER) for name in ("maximum", "exclusiveMaximum"))
    multiple = _bound(schema, "multipleOf", 0)
    step = multiple if multiple > _FINEST else 1
    first, last = math.ceil(lowest / step), math.floor(highest / step)
    found: list[float] = [1, *(count * step for count in (math.ceil(1 / step), first, first + 1, last, last - 1))]
    if multiple <= 0 and not whole:
        found += [lowest, highest, (lowest + highest) / 2]
    fitting = [each for each in found if _fits(each, schema) and (each == int(each) or not whole)]
    nearest = min(fitting, key=lambda each: abs(each - 1), default=1)
    return int(nearest) if whole else nearest


def _fits(number: float, schema: dict[str, Any]) -> bool:
    multiple = _bound(schema, "multipleOf", 0)
    return (
        _bound(schema, "minimum", number) <= number <= _bound(schema, "maximum", number)
        and _bound(schema, "exclusiveMinimum", -math.inf) < number < _bound(schema, "exclusiveMaximum", math.inf)
        and (multiple <= _FINEST or math.isclose(number / multiple, round(number / multiple), abs_tol=_FINEST))
    )


def _text(schema: dict[str, Any], phrase: str) -> str:
    if isinstance(kind := schema.get("format"), str) and kind in _FORMATS:
        return _FORMATS[kind]
    shortest = int(min(max(_bound(schema, "minLength", 0), 0), _MAX_LENGTH))
    longest = int(min(max(_bound(schema, "maxLength", _MAX_LENGTH), 0), _MAX_LENGTH))
    text = phrase if len(phrase) >= shortest else phrase.ljust(shortest, ".")
    return text[:longest]
