"""Tools: `{"type": "function", "function": {"name", "description", "parameters"}}`. None can be made a must."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import msgspec

from llmproxy_core import unsupported
from llmproxy_core.chat import BuiltinTool, ChatRequest, JSONText, Tool, remember
from llmproxy_core.wire import (
    STRING,
    Changes,
    Group,
    Members,
    Values,
    Wire,
    check_choice,
    encode,
    join_array,
    join_object,
    nested,
    text_tool,
    usual,
    with_items,
)

_NO_PARAMETERS = b'{"type":"object","properties":{}}'


class _PlainFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()


class _PlainTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    function: _PlainFunction
    type: Literal["function"] | None = None


_plain_tool = usual(_PlainTool)
_NO_SCHEMA = (b"", b"null")


def _read(members: Members, wire: Wire) -> Values:
    texts = members.array("tools")
    return {"tools": tuple(_read_tool(text, f"tools[{index}]", wire) for index, text in enumerate(texts))}


def _read_tool(text: bytes, place: str, wire: Wire) -> Tool:
    plain = _plain_tool(text)
    if plain is not None:
        said, parameters = plain.function, bytes(plain.function.parameters)
        known = None if parameters in _NO_SCHEMA else parameters
        return remember(Tool(said.name, said.description, known), wire.api, text)
    members = Members(text, place, wire.fail)
    function = members.need_object("function")
    if members.take("type", STRING) not in (None, "function"):
        raise wire.fail(f"{place}.type", "'function'")
    tool = Tool(
        function.need("name", STRING),
        function.take("description", STRING),
        function.raw("parameters"),
        extra=members.rest() | function.rest("function."),
    )
    return remember(tool, wire.api, text)


def _write(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    written = []
    for index, tool in _offered(chat, wire):
        made = wire.attempt(partial(_write_tool, tool, f"tools[{index}]", wire))
        written += [] if made is None else [made]
    if "tools" in before:
        return {"tools": with_items(before["tools"], written) if written else None}
    return {"tools": join_array(written) if written else None}


def _offered(chat: ChatRequest, wire: Wire) -> list[tuple[int, Tool | BuiltinTool]]:
    """The tools that may be called, with their places: leaving others out is all that can be said of a choice."""
    tools, choice = list(enumerate(chat.tools)), chat.tool_choice
    if not wire.own:
        check_choice(chat)
    if choice is None or not tools:
        return tools
    match choice.mode:
        case "none":
            wire.convert("tools", "omitted")
            return []
        case "allowed":
            wire.convert("tools", "narrowed")
            names = frozenset(choice.names)
            return [(index, tool) for index, tool in tools if isinstance(tool, Tool) and tool.name in names]
        case "required" | "named":
            wire.refuse("tool_choice", "that a tool must be called")
        case "auto":
            pass
    return tools


def _write_tool(tool: Tool | BuiltinTool, place: str, wire: Wire) -> bytes:
    if (kept := wire.kept(tool.raw)) is not None:
        return kept
    if isinstance(tool, BuiltinTool):
        raise unsupported(place, f"a tool of the kind {tool.kind!r}")
    if tool.kind != "custom" and not tool.extra and not tool.strict:
        about = b"" if tool.description is None else b',"description":' + encode(tool.description)
        return b'{"type":"function","function":{"name":%b%b,"parameters":%b}}' % (
            encode(tool.name),
            about,
            tool.parameters or _NO_PARAMETERS,
        )
    if tool.strict:
        wire.convert(f"{place}.strict", "dropped")
    is_custom = tool.kind == "custom"
    function = {"name": encode(text_tool.sent_name(tool.name) if is_custom else tool.name)}
    function |= {} if tool.description is None else {"description": encode(tool.description)}
    function["parameters"] = text_tool.SCHEMA if is_custom else tool.parameters or _NO_PARAMETERS
    if is_custom:
        wire.convert(place, "converted")
        if not text_tool.is_free(tool.format):
            wire.convert(f"{place}.format", "dropped")
    extra = wire.unknown(tool.extra, place, "function")
    more = nested(tool.extra, "function") if wire.own else {}
    return join_object({"type": b'"function"', "function": join_object(function | more)} | extra)


def _write_parallel(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    if chat.parallel_tool_calls is False and chat.tools:
        wire.convert("parallel_tool_calls", "dropped")  # nobody can be told; who asks so is told that
    return {}


TOOLS = Group(("tools", "tool_choice"), _read, _write, frozenset({"tools"}), says_nothing=True)
PARALLEL = Group(("parallel_tool_calls",), lambda members, wire: {}, _write_parallel, frozenset(), says_nothing=True)
