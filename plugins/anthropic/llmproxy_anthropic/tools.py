"""Tools the caller offers, and which of them the model must use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from llmproxy_anthropic.block_write import past_name, sent_name
from llmproxy_anthropic.cache_mark import CACHE, take_mark, write_mark
from llmproxy_anthropic.claude import claude
from llmproxy_anthropic.own_tool import ANSWER
from llmproxy_anthropic.schema import strict_schema
from llmproxy_anthropic.tool_pairs import called_names
from llmproxy_anthropic.web_search import KINDS, write_search
from llmproxy_core import unsupported
from llmproxy_core.chat import BuiltinTool, ChatRequest, JSONText, Raw, Tool, ToolChoice, remember
from llmproxy_core.wire import (
    BOOLEAN,
    STRING,
    Changes,
    Members,
    Values,
    Wire,
    check_choice,
    decode_object,
    encode,
    join_array,
    join_object,
    text_tool,
    usual,
    with_items,
    with_members,
)

_NO_PARAMETERS = b'{"type":"object","properties":{}}'
_HINTS = frozenset({"allowed_callers", "defer_loading", "eager_input_streaming", "input_examples"})
_ANSWER_ABOUT = "Gives the final answer. Call it with the whole answer."


# -- reading -------------------------------------------------------------------------------------------------


class _PlainTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    type: Literal["custom", ""] | None = None


_plain_tool = usual(_PlainTool)
_NO_SCHEMA = (b"", b"null")


def read_tools(members: Members, wire: Wire) -> tuple[Tool | BuiltinTool, ...]:
    place = members.at("tools")
    return tuple(_read_tool(text, f"{place}[{index}]", wire) for index, text in enumerate(members.array("tools")))


def _read_tool(text: bytes, place: str, wire: Wire) -> Tool | BuiltinTool:
    """An element of `tools`: the provider's own when it has a type but "custom"."""
    plain = _plain_tool(text)
    if plain is not None:
        schema = bytes(plain.input_schema)
        return remember(
            Tool(plain.name, plain.description, None if schema in _NO_SCHEMA else schema, plain.strict), wire.api, text
        )
    members = Members(text, place, wire.fail)
    kind = members.take("type", STRING) or "custom"
    if kind != "custom":
        return BuiltinTool(kind, Raw(wire.api, text))
    tool = Tool(
        members.need("name", STRING),
        members.take("description", STRING),
        members.raw("input_schema"),
        members.take("strict", BOOLEAN),
        cache=take_mark(members),
        extra=_without_hints(members.rest()),
    )
    return remember(tool, wire.api, text)


def _without_hints(extra: dict[str, JSONText]) -> dict[str, JSONText]:
    """Members that tell this provider how to go about it, and change nothing of what a tool is."""
    return {name: text for name, text in extra.items() if name not in _HINTS}


def read_choice(members: Members, wire: Wire) -> Values:
    """`tool_choice`; a form that nobody knows stays an unknown member."""
    text = members.peek("tool_choice")
    if text is None or text == b"null":
        return {}
    inner = Members(text, members.at("tool_choice"), wire.fail)
    found: ToolChoice | None
    match inner.need("type", STRING):
        case "auto" if inner.peek("disable_parallel_tool_use") is not None:
            found = None  # it is there to say that alone
        case "auto":
            found = ToolChoice("auto")
        case "none":
            found = ToolChoice("none")
        case "any":
            found = ToolChoice("required")
        case "tool":
            found = ToolChoice("named", (inner.need("name", STRING),))
        case _:
            return {}
    members.raw("tool_choice")
    serial = inner.take("disable_parallel_tool_use", BOOLEAN)
    members.keep(inner)
    return {"tool_choice": found, "parallel_tool_calls": None if serial is None else not serial}


# -- writing -------------------------------------------------------------------------------------------------


def write_tools(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    """
    `tools` and `tool_choice`.

    Anew: those of a subset that may be chosen from are offered alone; tools that were called in the past and are not
    offered any more are named all the same, since calls without definitions are refused.
    """
    if before:
        tools = [_write_tool(tool, f"tools[{index}]", chat, wire) for index, tool in enumerate(chat.tools)]
        was = before.get("tools", b"")
        listed = with_items(was, tools) if was.startswith(b"[") else join_array(tools)
        return {"tools": listed if tools else None, "tool_choice": write_choice(chat, before.get("tool_choice"))}
    if not wire.own:
        check_choice(chat)
    offered = _offered(chat, wire)
    if needs_answer_tool(chat):
        return _with_answer_tool(chat, offered, wire)
    if offered:
        return {"tools": join_array(offered), "tool_choice": write_choice(chat, None)}
    names = called_names(chat.messages)
    if not names:
        return {}
    wire.convert("tools", "completed")
    sent = dict.fromkeys(past_name(name, "tools", wire) for name in names)
    tools = [join_object({"name": encode(name), "input_schema": _NO_PARAMETERS}) for name in sent]
    return {"tools": join_array(tools), "tool_choice": b'{"type":"none"}'}


def _offered(chat: ChatRequest, wire: Wire) -> list[bytes]:
    choice = chat.tool_choice
    is_subset = choice is not None and (choice.mode == "allowed" or len(choice.names) > 1)
    only = frozenset(choice.names) if choice is not None and is_subset else frozenset()
    written = []
    for index, tool in enumerate(chat.tools):
        if only and _name(tool) not in only:
            wire.convert("tools", "narrowed")
            continue
        place = f"tools[{index}]"
        text = wire.attempt(lambda tool=tool, place=place: _write_tool(tool, place, chat, wire))  # type: ignore[misc]
        if text is not None:
            written.append(text)
    return written


def _name(tool: Tool | BuiltinTool) -> str:
    return tool.name if isinstance(tool, Tool) else tool.kind


def _write_tool(tool: Tool | BuiltinTool, place: str, chat: ChatRequest, wire: Wire) -> bytes:
    if (kept := wire.kept(tool.raw)) is not None:
        return kept
    if isinstance(tool, BuiltinTool):
        if tool.kind in KINDS:
            return write_search(tool, place, wire)
        raise unsupported(place, f"the provider-run tool {tool.kind!r} of another protocol")
    if tool.kind != "custom" and not tool.extra and not tool.strict and tool.cache is None and not wire.own:
        about = b"" if tool.description is None else b',"description":' + encode(tool.description)
        name = encode(sent_name(tool.name, f"{place}.name"))
        return b'{"name":%b%b,"input_schema":%b}' % (name, about, _schema(tool.parameters))
    is_custom = tool.kind == "custom"
    if is_custom and not wire.own:
        wire.convert(place, "converted")
        if not text_tool.is_free(tool.format):
            wire.convert(f"{place}.format", "dropped")
    members = {"name": encode(sent_name(tool.name, f"{place}.name", is_custom=is_custom))}
    if tool.description is not None:
        members["description"] = encode(tool.description)
    members["input_schema"] = text_tool.SCHEMA if is_custom else _schema(tool.parameters)
    if tool.strict:
        if claude(chat.model).takes_format or wire.kept(tool.raw) is not None:
            members |= {"input_schema": strict_schema(members["input_schema"]), "strict": b"true"}
        else:
            wire.convert(f"{place}.strict", "dropped")
    elif tool.strict is False and wire.own:
        members["strict"] = b"false"
    return join_object(members | write_mark(tool.cache) | wire.unknown(tool.extra, place, CACHE))


def _schema(parameters: JSONText | None) -> JSONText:
    """*parameters* as the schema of an object, which it must be."""
    if parameters is None:
        return _NO_PARAMETERS
    try:
        members = decode_object(parameters)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _NO_PARAMETERS
    if not members:
        return _NO_PARAMETERS
    return (
        parameters
        if bytes(members.get("type", b"")) == b'"object"'
        else with_members(parameters, {"type": b'"object"'})
    )


def write_choice(chat: ChatRequest, before: JSONText | None) -> bytes | None:
    """`tool_choice`, with whether calls may be parallel, which stands in it."""
    choice, serial = chat.tool_choice, chat.parallel_tool_calls is False
    if choice is None and not serial:
        return None
    members: dict[str, bytes]
    match choice:
        case ToolChoice(mode="none"):
            return b'{"type":"none"}'
        case ToolChoice(mode="required"):
            members = {"type": b'"any"'}
        case ToolChoice(mode="named", names=(name,)):
            members = {"type": b'"tool"', "name": encode(_sent(name, chat))}
        case ToolChoice(mode="named"):
            members = {"type": b'"any"'}
        case _:
            members = {"type": b'"auto"'}
    if chat.parallel_tool_calls is not None and (serial or b"disable_parallel_tool_use" in (before or b"")):
        members["disable_parallel_tool_use"] = encode(serial)
    return join_object(members)


def _sent(name: str, chat: ChatRequest) -> str:
    is_custom = any(isinstance(tool, Tool) and tool.name == name and tool.kind == "custom" for tool in chat.tools)
    return sent_name(name, "tool_choice", is_custom=is_custom)


# -- answers in a schema ---------------------------------------------------------------------------------------


def needs_answer_tool(chat: ChatRequest) -> bool:
    """Whether the answer's schema can be said only as that of a tool the model must call."""
    wanted = chat.response_format
    return wanted is not None and wanted.kind == "json_schema" and not claude(chat.model).takes_format


def forces_a_tool(chat: ChatRequest) -> bool:
    """Whether the model will be made to call a tool, as it is asked anew."""
    forced = chat.tool_choice is not None and chat.tool_choice.mode in {"required", "named"} and bool(chat.tools)
    return forced or needs_answer_tool(chat)


def _with_answer_tool(chat: ChatRequest, offered: Sequence[bytes], wire: Wire) -> Changes:
    """The answer as a tool; with others beside it, the model may call those first, also where it would have to."""
    wanted = chat.response_format
    assert wanted is not None
    wire.convert("response_format", "tool")
    members = {
        "name": encode(ANSWER),
        "description": encode(wanted.description or _ANSWER_ABOUT),
        "input_schema": _schema(wanted.schema),
    }
    others: Iterable[bytes] = () if chat.tool_choice is not None and chat.tool_choice.mode == "none" else offered
    tools = [*others, join_object(members)]
    if others and chat.tool_choice is not None and chat.tool_choice.mode in {"required", "named"}:
        wire.convert("tool_choice", "converted")
    choice = {"type": b'"any"'} if len(tools) > 1 else {"type": b'"tool"', "name": encode(ANSWER)}
    choice["disable_parallel_tool_use"] = b"true"
    return {"tools": join_array(tools), "tool_choice": join_object(choice)}
