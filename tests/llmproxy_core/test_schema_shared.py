"""A schema that says everything once means what it meant, and editors find their way in it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.config_schema import json_schema
from llmproxy_core.plugins import Registry
from llmproxy_core.schema_shared import Schema, shared
from tests.schema import written_out

LONG = "What it is good for, in as many words as make it worth a definition of its own, which is no more than a few."


def key(doc: str = LONG, **more: object) -> dict[str, object]:
    return {"type": "string", "description": doc, "examples": ["x", "y"], **more}


def table(**keys: object) -> dict[str, object]:
    return {"type": "object", "properties": keys, "additionalProperties": False}


def test_a_key_that_two_tables_have_alike_is_defined_once_under_its_name() -> None:
    schema: Schema = {
        "anyOf": [table(model=key(), own=key()), table(model=key(minLength=1)), table(model=key(minLength=1))]
    }

    found = shared(schema)

    assert found["$defs"] == {"model": key(), "model_2": key(minLength=1)}
    assert found["anyOf"] == [
        table(model={"$ref": "#/$defs/model"}, own={"$ref": "#/$defs/model"}),
        table(model={"$ref": "#/$defs/model_2"}),
        table(model={"$ref": "#/$defs/model_2"}),
    ]


def test_what_is_inside_of_a_shared_table_is_no_definition_of_its_own() -> None:
    schema: Schema = {"anyOf": [table(retries=table(jitter=key())), table(retries=table(jitter=key()))]}

    assert shared(schema)["$defs"] == {"retries": table(jitter=key())}


def test_short_keys_and_those_of_one_table_stay_where_they_are() -> None:
    schema: Schema = {"anyOf": [table(a=key("Short."), b=key()), table(a=key("Short."))]}

    assert shared(schema) == schema


KEYS = st.sampled_from(["a", "b", "properties", "$ref", "items"])
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.sampled_from([key(), key("Short."), key(minLength=1)]),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3).map(lambda keys: table(**keys)),
    max_leaves=12,
)


@given(SCHEMAS)
def test_it_means_the_same(schema: dict[str, Any]) -> None:
    assert written_out(shared(schema)) == schema


def test_no_table_of_the_whole_configuration_is_written_twice_as_a_key() -> None:
    """Providers and groups have most of their keys alike."""
    written = Counter[str]()

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            keys = part.get("properties")
            written.update(json.dumps(it) for it in (keys.values() if isinstance(keys, dict) else ()) if "type" in it)
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            walk(inner)

    walk(json_schema(Registry.load()))

    assert [text for text, times in written.items() if times > 1 and len(text) > 120] == []
