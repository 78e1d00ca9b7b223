"""Tools the caller offers, and which of them the model must use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from llmproxy_core.chat import BuiltinTool, Raw, Tool, ToolChoice, remember
from llmproxy_core.translation import unsupported
from llmproxy_core.wire.members import BOOLEAN, OBJECT, STRING, Members, decode
from llmproxy_core.wire.splice import decode_object, encode, join_array, join_object
from llmproxy_core.wire.wire import Wire, nested

# -- tools ---------------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


class _FunctionTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["function"]
    function: _Function


_NOTHING = (b"", b"null")
_decode_tool = msgspec.json.Decoder(_FunctionTool).decode


def _plain_tool(text: bytes) -> _Function | None:
    """A function with nothing unknown to it, as nearly all tools are; None for another one, or a wrong one."""
    try:
        return _decode_tool(text).function
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_tool(text: bytes, place: str, wire: Wire) -> Tool | BuiltinTool:
    """An element of `tools`: a function when it has no type (Mistral), the provider's for unknown types."""
    plain = _plain_tool(text)
    if plain is not None:
        parameters = bytes(plain.parameters)
        known = None if parameters in _NOTHING else parameters
        return remember(Tool(plain.name, plain.description, known, plain.strict), wire.api, text)
    members = Members(text, place, wire.fail)
    kind = members.take("type", STRING) or "function"
    match kind:
        case "function":
            function = members.need_object("function")
            tool = Tool(
                function.need("name", STRING),
                function.take("description", STRING),
                function.raw("parameters"),
                function.take("strict", BOOLEAN),
                extra=members.rest() | function.rest("function."),
            )
        case "custom":
            custom = members.need_object("custom")
            tool = Tool(
                custom.need("name", STRING),
                custom.take("description", STRING),
                kind="custom",
                format=_flat_format(custom),
                extra=members.rest() | custom.rest("custom."),
            )
        case _:
            return BuiltinTool(kind, Raw(wire.api, text))
    return remember(tool, wire.api, text)


def _flat_format(custom: Members) -> bytes | None:
    """What a custom tool takes: `{"type": "grammar", "grammar": {…}}` here, all of it beside the type in Responses."""
    text = custom.peek("format")
    if text is None or text == b"null":
        return None
    custom.raw("format")
    place = custom.at("format")
    members = decode(OBJECT, text, place, custom.fail)
    inner = members.pop("grammar", None)
    return join_object(
        _texts(members) | ({} if inner is None else _texts(decode(OBJECT, bytes(inner), place, custom.fail)))
    )


def _texts(raws: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in raws.items()}


def _nested_format(flat: bytes) -> bytes:
    members = _texts(decode_object(flat))
    kind = members.pop("type", b'"text"')
    return join_object({"type": kind} | ({"grammar": join_object(members)} if kind == b'"grammar"' else members))


def read_legacy_tool(text: bytes, place: str, wire: Wire) -> Tool:
    """An element of `functions`."""
    members = Members(text, place, wire.fail)
    tool = Tool(
        members.need("name", STRING),
        members.take("description", STRING),
        members.raw("parameters"),
        kind="legacy",
        extra=members.rest(),
    )
    return remember(tool, wire.api, text)


def write_tools(tools: Iterable[Tool | BuiltinTool], wire: Wire) -> dict[str, bytes | None]:
    """The members `tools` and `functions`, None for the one that has nothing."""
    modern: list[bytes] = []
    legacy: list[bytes] = []
    for index, tool in enumerate(tools):
        is_legacy = isinstance(tool, Tool) and tool.kind == "legacy"
        (legacy if is_legacy else modern).append(_write_tool(tool, index, wire))
    return {
        "tools": join_array(modern) if modern else None,
        "functions": join_array(legacy) if legacy else None,
    }


def _write_tool(tool: Tool | BuiltinTool, index: int, wire: Wire) -> bytes:
    if (kept := wire.kept(tool.raw)) is not None:
        return kept
    place = f"tools[{index}]"
    if isinstance(tool, BuiltinTool):
        raise unsupported(place, f"the provider-run tool {tool.kind!r} of another protocol")
    if tool.kind == "function" and not tool.extra and tool.format is None:
        return b'{"type":"function","function":%b}' % _function(tool)
    members = {"name": encode(tool.name)}
    if tool.description is not None:
        members["description"] = encode(tool.description)
    if tool.parameters is not None:
        members["parameters"] = tool.parameters
    if tool.strict is not None:
        members["strict"] = encode(tool.strict)
    if tool.kind == "legacy":
        return join_object(members | wire.unknown(tool.extra, place))
    if tool.format is not None:
        members["format"] = _nested_format(tool.format)
    inner = join_object(members | nested(tool.extra, tool.kind))
    return join_object({"type": encode(tool.kind), tool.kind: inner} | wire.unknown(tool.extra, place, tool.kind))


def _function(tool: Tool) -> bytes:
    """The function that *tool*, of which nothing is unknown, is."""
    text = b'{"name":' + encode(tool.name)
    if tool.description is not None:
        text += b',"description":' + encode(tool.description)
    if tool.parameters is not None:
        text += b',"parameters":' + tool.parameters
    if tool.strict is not None:
        text += b',"strict":true' if tool.strict else b',"strict":false'
    return text + b"}"


# -- choice --------------------------------------------------------------------------------------------------

_MODES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


def read_choice(text: bytes, place: str, wire: Wire, body: Members) -> ToolChoice | None:
    """
    `tool_choice`; what nobody knows of it is kept in *body*.

    None for a form that only some server knows: it stays an unknown member.
    """
    if not text.startswith(b"{"):
        return _read_mode(decode(STRING, text, place, wire.fail))
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    if kind not in {"function", "custom", "allowed_tools"}:
        return None
    inner = members.need_object(kind)
    body.keep(members)
    if kind != "allowed_tools":
        name = inner.need("name", STRING)
        body.keep(inner)
        return ToolChoice("named", (name,))
    place = inner.at("tools")
    tools = enumerate(inner.array("tools"))
    names = tuple(_name_of(tool, f"{place}[{index}]", wire, body) for index, tool in tools)
    mode = inner.need("mode", STRING)
    body.keep(inner)
    return ToolChoice("named" if mode == "required" else "allowed", names)


def _read_mode(word: str) -> ToolChoice | None:
    match _MODES.get(word):
        case "auto":
            return ToolChoice("auto")
        case "none":
            return ToolChoice("none")
        case "required":
            return ToolChoice("required")
        case _:
            return None


def _name_of(text: bytes, place: str, wire: Wire, body: Members) -> str:
    """The name in `{"type": "function", "function": {"name": …}}`; a tool without one goes by its type."""
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    tool = members.object(kind)
    name = kind if tool is None else tool.need("name", STRING)
    for each in (members, tool):
        if each is not None:
            body.keep(each)
    return name


def read_legacy_choice(text: bytes, place: str, wire: Wire, body: Members) -> ToolChoice | None:
    """`function_call` of a request: "auto", "none" or `{"name": …}`; what nobody knows of it is kept in *body*."""
    if not text.startswith(b"{"):
        return _read_mode(decode(STRING, text, place, wire.fail))
    members = Members(text, place, wire.fail)
    name = members.need("name", STRING)
    body.keep(members)
    return ToolChoice("named", (name,))


def write_choice(choice: ToolChoice, tools: Sequence[Tool | BuiltinTool]) -> bytes:
    """*choice* as `tool_choice`; *tools* tell which of its names are custom tools."""
    if choice.mode in {"auto", "none", "required"}:
        return encode(choice.mode)
    kinds = other_kinds(tools)
    named = [_reference(name, kinds.get(name)) for name in choice.names]
    if choice.mode == "named" and len(named) == 1:
        return named[0]
    mode = "required" if choice.mode == "named" else "auto"
    allowed = join_object({"mode": encode(mode), "tools": join_array(named)})
    return join_object({"type": b'"allowed_tools"', "allowed_tools": allowed})


def other_kinds(tools: Sequence[Tool | BuiltinTool]) -> dict[str, str]:
    """The types of those *tools* that are no functions, by what a choice calls them; of two of a name the first's."""
    kinds: dict[str, str] = {}
    for tool in tools:
        if isinstance(tool, BuiltinTool):
            kinds.setdefault(tool.kind, tool.kind)
        elif tool.kind == "custom":
            kinds.setdefault(tool.name, "custom")
    return kinds


def _reference(name: str, kind: str | None) -> bytes:
    if kind is not None and kind != "custom":
        return join_object({"type": encode(name)})
    kind = kind or "function"
    return join_object({"type": encode(kind), kind: join_object({"name": encode(name)})})


def write_legacy_choice(choice: ToolChoice) -> bytes:
    """*choice* as `function_call`. Unsupported for what functions cannot say."""
    if choice.mode in {"auto", "none"}:
        return encode(choice.mode)
    if choice.mode == "named" and len(choice.names) == 1:
        return join_object({"name": encode(choice.names[0])})
    raise unsupported("tool_choice", f"the choice {choice.mode!r} among legacy functions")
