"""What a JSON Schema says several times, said once."""

from __future__ import annotations

import json
from collections import Counter

Schema = dict[str, object]

_WORTH = 120
"""Characters of a key's schema from which on a reference is shorter, and as easy to read."""


def shared(schema: Schema) -> Schema:
    """
    *schema*, which means the same, with keys that are alike in several tables defined once in `$defs`.

    A key is replaced whole by its reference, since editors pass over what stands beside one; the tables themselves
    stay, with their keys' names and `additionalProperties`, so that they complete and refuse as before. A definition
    has the name of its key, numbered where keys of that name differ; such names need no escapes in a JSON pointer.
    """
    uses = Counter[str]()
    names: dict[str, str] = {}
    definitions: Schema = {}

    def count(part: object) -> None:
        """How often each key's schema would be written; what is inside of one that is shared counts once."""
        for each in _keys(part).values():
            text = json.dumps(each)
            uses[text] += 1
            if uses[text] == 1:
                count(each)
        for each in _others(part):
            count(each)

    def put(part: object) -> object:
        if isinstance(part, list):
            return [put(each) for each in part]
        if not isinstance(part, dict):
            return part
        keys = {name: put_key(name, each) for name, each in _keys(part).items()}
        return {name: keys if name == "properties" else put(each) for name, each in part.items()}

    def put_key(name: str, part: object) -> object:
        text = json.dumps(part)
        if uses[text] < 2 or len(text) < _WORTH:
            return put(part)
        if text not in names:
            names[text] = own = _free(name, set(names.values()))
            definitions[own] = put(part)
        return {"$ref": f"#/$defs/{names[text]}"}

    count(schema)
    whole = put(schema)
    assert isinstance(whole, dict)
    return whole | ({"$defs": dict(sorted(definitions.items()))} if definitions else {})


def _free(name: str, taken: set[str]) -> str:
    return next(it for number in range(1, len(taken) + 2) if (it := _numbered(name, number)) not in taken)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


def _keys(schema: object) -> dict[str, object]:
    """The schemas of the keys of a table."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def _others(schema: object) -> list[object]:
    """The schemas inside of one that are no keys."""
    if isinstance(schema, dict):
        return [each for name, each in schema.items() if name != "properties"]
    return schema if isinstance(schema, list) else []
