"""Tools the caller offers, and which of them the model must use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from llmproxy_core.chat import BuiltinTool, Raw, Tool, ToolChoice, remember
from llmproxy_core.translation import unsupported
from llmproxy_core.wire import BOOLEAN, STRING, Members, Wire, decode, encode, join_array, join_object, usual
from llmproxy_openai.tools import other_kinds

# -- tools ---------------------------------------------------------------------------------------------------


class _PlainTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


_plain_tool = usual(_PlainTool)
_NO_SCHEMA = (b"", b"null")


def read_tool(text: bytes, place: str, wire: Wire) -> Tool | BuiltinTool:
    """An element of `tools`: the caller's function or custom tool, or one that the provider runs."""
    plain = _plain_tool(text)
    if plain is not None:
        schema = bytes(plain.parameters)
        known = None if schema in _NO_SCHEMA else schema
        is_sure = is_strict(known) if plain.strict is None else plain.strict
        return remember(Tool(plain.name, plain.description, known, is_sure), wire.api, text)
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    match kind:
        case "function":
            parameters, strict = members.raw("parameters"), members.take("strict", BOOLEAN)
            if strict is None:
                strict = is_strict(parameters)
            tool = Tool(
                members.need("name", STRING),
                members.take("description", STRING),
                parameters,
                strict,
                extra=members.rest(),
            )
        case "custom":
            tool = Tool(
                members.need("name", STRING),
                members.take("description", STRING),
                kind="custom",
                format=members.raw("format"),
                extra=members.rest(),
            )
        case _:
            return BuiltinTool(kind, Raw(wire.api, text))
    return remember(tool, wire.api, text)


def is_strict(parameters: bytes | None) -> bool:
    """
    What a function that does not say `strict` is here: strict where its schema allows it.

    That is a schema whose every object names all its properties as required, and allows no others.
    """
    return parameters is not None and _allows_strict(msgspec.json.decode(parameters))


def _allows_strict(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(_allows_strict(each) for each in schema)
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, dict):
        names = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        if schema.get("additionalProperties") is not False or set(names) != set(required or ()):
            return False
    return all(_allows_strict(each) for each in schema.values())


def write_tools(tools: Sequence[Tool | BuiltinTool], wire: Wire) -> bytes | None:
    """`tools`; None when there is none."""
    if not tools:
        return None
    return join_array(_write_tool(tool, f"tools[{index}]", wire) for index, tool in enumerate(tools))


def _write_tool(tool: Tool | BuiltinTool, place: str, wire: Wire) -> bytes:
    if (kept := wire.kept(tool.raw)) is not None:
        return kept
    if isinstance(tool, BuiltinTool):
        raise unsupported(place, f"the provider-run tool {tool.kind!r} of another protocol")
    if tool.kind != "custom" and not tool.extra:
        return _function(tool)
    members = {"type": b'"custom"' if tool.kind == "custom" else b'"function"', "name": encode(tool.name)}
    if tool.description is not None:
        members["description"] = encode(tool.description)
    if tool.kind == "custom":
        if tool.format is not None:
            members["format"] = tool.format
    else:
        members["parameters"] = tool.parameters or b"null"
        members["strict"] = encode(bool(tool.strict))  # not said would be true
    return join_object(members | wire.unknown(tool.extra, place))


def _function(tool: Tool) -> bytes:
    """The function that *tool*, of which nothing is unknown, is. Strictness that is not said would be true."""
    about = b"" if tool.description is None else b',"description":' + encode(tool.description)
    strict = b"true" if tool.strict else b"false"
    return b'{"type":"function","name":%b%b,"parameters":%b,"strict":%b}' % (
        encode(tool.name),
        about,
        tool.parameters or b"null",
        strict,
    )


# -- choice --------------------------------------------------------------------------------------------------


def read_choice(text: bytes, wire: Wire, body: Members) -> ToolChoice | None:
    """
    `tool_choice`, a member of *body*, in which what nobody knows of it is kept.

    None for a form that has no meaning elsewhere: it stays an unknown member.
    """
    place = body.at("tool_choice")
    if not text.startswith(b"{"):
        match decode(STRING, text, place, wire.fail):
            case "auto" | "none" | "required" as mode:
                return ToolChoice(mode)
            case _:
                return None
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    if kind == "allowed_tools":
        tools = enumerate(members.array("tools"))
        names = tuple(_name_in(tool, f"{place}.tools[{index}]", wire, body) for index, tool in tools)
        choice = ToolChoice("named" if members.need("mode", STRING) == "required" else "allowed", names)
        body.keep(members)
        return choice
    if kind in {"function", "custom"}:
        name = members.need("name", STRING)
        body.keep(members)
        return ToolChoice("named", (name,))
    return None if members.rest() else ToolChoice("named", (kind,))


def _name_in(text: bytes, place: str, wire: Wire, body: Members) -> str:
    """The name of a tool; one without goes by its type."""
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    name, label = members.take("name", STRING), members.take("server_label", STRING)
    body.keep(members)
    return name or label or kind


def write_choice(choice: ToolChoice, tools: Sequence[Tool | BuiltinTool]) -> bytes:
    """*choice* as `tool_choice`; *tools* tell which of its names are of what type."""
    if choice.mode in {"auto", "none", "required"}:
        return encode(choice.mode)
    kinds = other_kinds(tools)
    named = [_reference(name, kinds.get(name)) for name in choice.names]
    if choice.mode == "named" and len(named) == 1:
        return named[0]
    mode = "required" if choice.mode == "named" else "auto"
    return join_object({"type": b'"allowed_tools"', "mode": encode(mode), "tools": join_array(named)})


def _reference(name: str, kind: str | None) -> bytes:
    if kind is not None and kind != "custom":
        return join_object({"type": encode(name)})
    return join_object({"type": encode(kind or "function"), "name": encode(name)})
