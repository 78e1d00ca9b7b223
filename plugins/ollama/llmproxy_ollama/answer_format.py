"""`format`: "json", or a JSON Schema, which the server enforces."""

from collections.abc import Mapping

from llmproxy_core.chat import ChatRequest, JSONText, ResponseFormat
from llmproxy_core.wire import Changes, Group, Members, Values, Wire, answer_schema

_JSON = b'"json"'


def _read(members: Members, wire: Wire) -> Values:
    text = members.raw("format")
    if text in (None, b'""'):
        return {}
    if text == _JSON:
        return {"response_format": ResponseFormat("json_object")}
    if text is None or not text.startswith(b"{"):
        raise wire.fail("format", "'json' or a JSON Schema")
    return {"response_format": ResponseFormat("json_schema", schema=text)}


def _write(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    wanted = chat.response_format
    if wanted is None or wanted.kind == "text":
        return {"format": None}
    if wanted.kind == "json_object" or wanted.schema is None:
        return {"format": _JSON}
    if wanted.strict:
        wire.convert("response_format.strict", "implied")
    return {"format": answer_schema(wanted, wire)}


FORMAT = Group(("response_format",), _read, _write, frozenset({"format"}), says_nothing=True)
