"""The schema of an answer, for protocols that have no other place for what the answer is."""

from __future__ import annotations

from llmproxy_core.chat import JSONText, ResponseFormat
from llmproxy_core.wire.splice import decode_object, encode, with_members
from llmproxy_core.wire.wire import Wire


def answer_schema(wanted: ResponseFormat, wire: Wire) -> JSONText | None:
    """The schema of *wanted*, with its description where the schema has none; else that is told as left out."""
    schema, description = wanted.schema, wanted.description
    if schema is None or not description:
        return schema
    said = encode(description)
    own = decode_object(schema).get("description") if schema.startswith(b"{") else b""
    if own is None:
        return with_members(schema, {"description": said})
    if bytes(own) != said:
        wire.convert("response_format.description", "dropped")
    return schema
