"""What the answer's text must be: `responseMimeType` and a schema."""

from __future__ import annotations

from llmproxy_core.chat import ResponseFormat
from llmproxy_core.wire import STRING, Changes, Wire, answer_schema, encode
from llmproxy_gemini.schema import to_json_schema
from llmproxy_gemini.spelling import Spelled

_JSON = "application/json"
_TEXT = "text/plain"
_SCHEMAS = ("responseJsonSchema", "_responseJsonSchema")


def read_format(config: Spelled) -> ResponseFormat | None:
    """The format; None for none said, and for one that only Google knows (an enum), which stays unknown."""
    kind = config.peek("responseMimeType")
    if kind is not None and kind not in {encode(_JSON), encode(_TEXT), b"null"}:
        return None
    config.take("responseMimeType", STRING)
    schema = next((text for name in _SCHEMAS if (text := config.raw(name)) is not None), None)
    if schema is None and (older := config.raw("responseSchema")) is not None:
        schema = to_json_schema(older, config.at("responseSchema"), config.fail)
    if schema is not None:
        return ResponseFormat("json_schema", schema=schema)
    if kind is None or kind == b"null":
        return None
    return ResponseFormat("json_object" if kind == encode(_JSON) else "text")


def write_format(wanted: ResponseFormat | None, wire: Wire) -> Changes:
    """The members for *wanted*. A schema's name and strictness have no place: it is always strict."""
    changes: Changes = dict.fromkeys(("responseMimeType", "responseSchema", *_SCHEMAS))
    if wanted is None or wanted.kind == "text":
        return changes
    changes["responseMimeType"] = encode(_JSON)
    if wanted.kind == "json_schema":
        changes[_SCHEMAS[0]] = answer_schema(wanted, wire)
    return changes
