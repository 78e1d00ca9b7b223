"""What a response repeats of the request that it answers."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire import decode_array, decode_object, encode, join_array, join_object
from llmproxy_openai.responses.paths import CREATE
from llmproxy_openai.responses.tools import is_strict

SILENCE: Mapping[str, bytes] = {
    "background": b"false",
    "instructions": b"null",
    "max_output_tokens": b"null",
    "max_tool_calls": b"null",
    "metadata": b"{}",
    "parallel_tool_calls": b"true",
    "previous_response_id": b"null",
    "prompt_cache_key": b"null",
    "reasoning": b'{"effort":null,"summary":null}',
    "safety_identifier": b"null",
    "store": b"false",
    "temperature": b"1.0",
    "text": b'{"format":{"type":"text"},"verbosity":"medium"}',
    "tool_choice": b'"auto"',
    "tools": b"[]",
    "top_logprobs": b"0",
    "top_p": b"1.0",
    "truncation": b'"disabled"',
    "user": b"null",
}
"""Members that the types of OpenAI's SDK want, with the values of a request that says nothing of them."""

_NOT_REPEATED = frozenset({"background", "store"})
"""Whatever was asked for: what is translated is answered at once, and is kept by nobody."""

_FUNCTION = {"description": b"null", "parameters": b"null"}


def repeated(chat: ChatRequest) -> Mapping[str, bytes]:
    """
    SILENCE, with what the client itself has said, as it stands in its request.

    What a processor has put in is not the client's to see. A request of another form, or of none, says nothing here.
    """
    origin = chat.origin
    if origin is None or origin.api != CREATE.form:
        return SILENCE
    said = {name: text for name, text in origin.members.items() if name in SILENCE and text != b"null"}
    return {**SILENCE, **{name: _whole(name, text) for name, text in said.items() if name not in _NOT_REPEATED}}


def _whole(name: str, text: JSONText) -> bytes:
    """The member as the request has it, and what it does not say of itself."""
    if name in {"reasoning", "text"}:
        return _filled(text, {name: bytes(raw) for name, raw in decode_object(SILENCE[name]).items()})
    if name == "tools":
        return join_array(_tool(bytes(tool)) for tool in decode_array(text))
    return text


def _tool(tool: bytes) -> bytes:
    members = decode_object(tool)
    if bytes(members.get("type", b"")) != b'"function"':
        return tool
    parameters = bytes(members.get("parameters", b"null"))
    return _filled(tool, _FUNCTION | {"strict": encode(is_strict(None if parameters == b"null" else parameters))})


def _filled(text: bytes, unsaid: Mapping[str, bytes]) -> bytes:
    """The object *text*, and those members of *unsaid* that it does not have, or has as null."""
    said = {name: bytes(raw) for name, raw in decode_object(text).items()}
    return join_object(dict(unsaid) | {name: raw for name, raw in said.items() if raw != b"null" or name not in unsaid})
