"""What an answer is stands in its schema, where a protocol has no other place for it."""

import json
from typing import Any

import pytest

from llmproxy_core import Translation
from llmproxy_core.chat import ResponseFormat
from llmproxy_core.wire import Wire, answer_schema

TOLD = {"response_format.description": "dropped"}


@pytest.mark.parametrize(
    ("schema", "description", "expected", "told"),
    [
        ({"type": "object"}, "dates", {"type": "object", "description": "dates"}, {}),
        ({"description": "sums"}, "dates", {"description": "sums"}, TOLD),
        ({"description": "dates"}, "dates", {"description": "dates"}, {}),
        ({"type": "object"}, None, {"type": "object"}, {}),
        (True, "dates", True, TOLD),
    ],
    ids=["put in", "another is there", "it is there", "none is said", "no object"],
)
def test_a_description_goes_into_a_schema_that_has_none(
    schema: Any, description: str | None, expected: Any, told: dict[str, str]
) -> None:
    translation = Translation()
    wanted = ResponseFormat("json_schema", "a", json.dumps(schema).encode(), description=description)

    text = answer_schema(wanted, Wire("any", translation=translation))

    assert text is not None
    assert (json.loads(text), translation.changes) == (expected, told)
