"""What the demo makes of a JSON Schema: values that fit it, and an end to every schema."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_server.demo_json import arguments, document

PERSON = {
    "type": "object",
    "required": ["name", "friend"],
    "properties": {"name": {"type": "string"}, "friend": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]}},
}

FITTING: list[tuple[str, dict[str, Any], Any]] = [
    ("text", {"type": "string"}, "Is it so?"),
    ("short text", {"type": "string", "maxLength": 5}, "Is it"),
    ("long text", {"type": "string", "minLength": 12}, "Is it so?..."),
    ("date", {"type": "string", "format": "date"}, "2025-01-31"),
    ("integer", {"type": "integer"}, 1),
    ("integer above", {"type": "integer", "minimum": 2.5}, 3),
    ("integer above, exclusive", {"type": "integer", "exclusiveMinimum": 7}, 8),
    ("integer below", {"type": "integer", "maximum": -3.5}, -4),
    ("multiple", {"type": "integer", "minimum": 3, "multipleOf": 5}, 5),
    ("number between", {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
    ("number at a bound", {"type": "number", "minimum": 2.5}, 2.5),
    ("boolean", {"type": "boolean"}, True),
    ("null", {"type": "null"}, None),
    ("nullable", {"type": ["null", "integer"]}, 1),
    ("enum", {"type": "string", "enum": ["c", "f"]}, "c"),
    ("const", {"const": {"a": [1]}}, {"a": [1]}),
    ("list", {"type": "array", "items": {"type": "integer"}}, [1]),
    ("list of three", {"type": "array", "items": {"type": "boolean"}, "minItems": 3}, [True, True, True]),
    ("list of none", {"type": "array", "items": {"type": "boolean"}, "maxItems": 0}, []),
    ("tuple", {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False}, [1, None]),
    ("required members", {"properties": {"a": {"type": "null"}, "b": {}}, "required": ["a"]}, {"a": None}),
    ("no member required", {"properties": {"a": {"type": "null"}}}, {"a": None}),
    ("reference", {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 1),
    (
        "all of",
        {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"required": ["b"]}]},
        {"a": 1, "b": "Is it so?"},
    ),
    ("one of", {"oneOf": [{"type": "integer", "minimum": 4}, {"type": "string"}]}, 4),
    (
        "itself within itself",
        {"$ref": "#/$defs/person", "$defs": {"person": PERSON}},
        {"name": "Is it so?", "friend": {"name": "Is it so?", "friend": None}},
    ),
]


@pytest.mark.parametrize(("schema", "expected"), [row[1:] for row in FITTING], ids=[row[0] for row in FITTING])
def test_the_value_fits_the_schema(schema: Any, expected: Any) -> None:
    made = document(json.dumps(schema).encode(), "Is it so?")

    assert json.loads(made) == expected
    assert type(json.loads(made)) is type(expected)


@pytest.mark.parametrize("schema", [None, b"{}", b"true"])
def test_without_a_schema_the_document_is_an_object(schema: bytes | None) -> None:
    assert json.loads(document(schema, "Yes")) == {"answer": "Yes"}


@pytest.mark.parametrize("schema", [None, b"{}", b"true", b"5", b'{"type": "string"}'])
def test_arguments_are_an_object_whatever_the_parameters(schema: bytes | None) -> None:
    assert json.loads(arguments(schema, "Yes")) == {}


def test_a_large_value_of_the_schema_is_not_repeated_without_bound() -> None:
    constant = "x" * 100_000
    schema = {"type": "array", "minItems": 100, "items": {"const": constant}}

    made = document(json.dumps(schema).encode(), "Yes")

    assert len(made) < 2 * len(constant)


def test_lists_within_lists_come_to_an_end() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(12):  # 100 items each would be 10^24 numbers
        schema = {"type": "array", "minItems": 100, "items": schema}

    made = document(json.dumps(schema).encode(), "Yes")

    assert len(made) < 10_000


_KEYWORDS = st.sampled_from(sorted({keyword for _, schema, _ in FITTING for keyword in schema}))
_WORDS = st.sampled_from(["object", "array", "integer", "number", "#", "#/$defs/a", "#/allOf", "date", "a"])
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
HOSTILE = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYWORDS | _WORDS, inner, max_size=5),
    max_leaves=30,
)


@given(HOSTILE)
def test_any_json_for_a_schema_gives_json(schema: object) -> None:
    """Integers beyond 64 bits and self-references included; a wrong schema is the caller's affair, not an error."""
    text = json.dumps(schema).encode()

    assert isinstance(json.loads(arguments(text, "Yes")), dict)
    json.loads(document(text, "Yes"))
