"""Tool calls of an assistant's message, and of its legacy form `function_call`."""

from __future__ import annotations

import msgspec

from llmproxy_core.chat import ToolCall, remember
from llmproxy_core.wire.members import STRING, Members, decode
from llmproxy_core.wire.splice import encode, join_object
from llmproxy_core.wire.wire import Wire, nested

_TEXT_OF = {"function": "arguments", "custom": "input"}


def read_call(text: bytes, place: str, wire: Wire) -> ToolCall:
    """One of `tool_calls`. Some servers leave out the type or the id (then "")."""
    members = Members(text, place, wire.fail)
    kind = members.take("type", STRING)
    call_id = members.take("id", STRING) or ""
    custom = kind == "custom"
    name = "custom" if custom else "function"
    call = members.need_object(name)
    signature = _take_signature(members)
    node = ToolCall(
        call_id,
        call.need("name", STRING),
        argument_text(call.raw(_TEXT_OF[name]), call.at(_TEXT_OF[name]), wire),
        "custom" if custom else "function",
        signature=signature,
        extra=members.rest() | call.rest(name + "."),
    )
    return remember(node, wire.api, text)


def read_legacy_call(members: Members) -> ToolCall:
    """`function_call`, which has no id."""
    arguments = members.take("arguments", STRING) or ""
    return ToolCall("", members.need("name", STRING), arguments, "legacy", extra=members.rest())


def argument_text(raw: bytes | None, place: str, wire: Wire) -> str:
    """The arguments as text; older Mistral models send the object itself."""
    if raw is None:
        return ""
    if raw.startswith(b'"'):
        return decode(STRING, raw, place, wire.fail)
    return raw.decode()


def write_call(call: ToolCall, place: str, wire: Wire) -> bytes:
    """*call* as an element of `tool_calls`."""
    if (kept := wire.kept(call.raw)) is not None:
        return kept
    name = "custom" if call.kind == "custom" else "function"
    inner = {"name": encode(call.name), _TEXT_OF[name]: encode(call.arguments)}
    members = {
        "id": encode(call.id),
        "type": encode(name),
        name: join_object(inner | nested(call.extra, name)),
    }
    if call.signature is not None:
        members["extra_content"] = write_signature(call.signature)
    return join_object(members | wire.unknown(call.extra, place, name))


def write_legacy_call(call: ToolCall, place: str, wire: Wire) -> bytes:
    """*call* as `function_call`."""
    members = {"name": encode(call.name), "arguments": encode(call.arguments)}
    return join_object(members | wire.unknown(call.extra, place))


def write_signature(signature: str) -> bytes:
    """Gemini's thought signature as Google's own OpenAI surface carries it."""
    return join_object({"google": join_object({"thought_signature": encode(signature)})})


def _take_signature(members: Members) -> str | None:
    """The thought signature, whose member is taken only when it holds nothing else."""
    signature = signature_in(members.peek("extra_content") or b"")
    if signature is not None:
        members.raw("extra_content")
    return signature


def signature_in(extra_content: bytes) -> str | None:
    """The signature when *extra_content* has the form of `write_signature` and nothing else."""
    try:
        content = _decode_signature(extra_content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return content.google.thought_signature


class _Google(msgspec.Struct, forbid_unknown_fields=True):
    thought_signature: str


class _ExtraContent(msgspec.Struct, forbid_unknown_fields=True):
    google: _Google


_decode_signature = msgspec.json.Decoder(_ExtraContent).decode
