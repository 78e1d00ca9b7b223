"""Tools the caller offers, and which of them the model must use."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

import msgspec

from llmproxy_core import unsupported
from llmproxy_core.chat import BuiltinTool, ChatRequest, JSONText, Raw, Tool, ToolChoice, remember
from llmproxy_core.wire import (
    STRING,
    STRINGS,
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
    with_members,
)
from llmproxy_gemini.model_kind import checks_signatures
from llmproxy_gemini.schema import to_json_schema
from llmproxy_gemini.spelling import Spelled, snake, spelled

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_SEARCH = "googleSearch"
CONFIG = "toolConfig"
_CALLING = "functionCallingConfig"
_LIMITS = ("allowed_domains", "blocked_domains", "max_uses", "user_location")
_SEARCH_MEMBERS = frozenset({"type", "name", "filters", "search_context_size", *_LIMITS})
_NO_LIMIT: tuple[object, ...] = (None, [], {})
_SERVER_SIDE = "includeServerSideToolInvocations"


# -- tools ---------------------------------------------------------------------------------------------------


class _PlainEntry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    functionDeclarations: list[msgspec.Raw]  # noqa: N815 - as it is spelled


class _PlainFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    description: str | None = None
    parametersJsonSchema: msgspec.Raw = msgspec.Raw()  # noqa: N815


_plain_entry, _plain_function = usual(_PlainEntry), usual(_PlainFunction)
_NO_SCHEMA = (b"", b"null")


def read_tools(members: Members, wire: Wire) -> Values:
    """The functions of all entries, and what else is in them: tools that Google runs."""
    tools: list[Tool | BuiltinTool] = []
    for index, text in enumerate(members.array("tools")):
        plain = _plain_entry(text)
        if plain is not None:
            place = f"{members.at('tools')}[{index}].functionDeclarations"
            functions = [bytes(each) for each in plain.functionDeclarations]
            tools += [
                _read_plain(each, wire) or _read_function(each, f"{place}[{number}]", wire)
                for number, each in enumerate(functions)
            ]
            continue
        entry = Spelled(text, f"{members.at('tools')}[{index}]", wire.fail)
        place = entry.at("functionDeclarations")
        functions = entry.array("functionDeclarations")
        tools += [
            _read_plain(each, wire) or _read_function(each, f"{place}[{number}]", wire)
            for number, each in enumerate(functions)
        ]
        for name, value in entry.rest().items():
            tools.append(BuiltinTool(name, Raw(wire.api, join_object({name: value}))))
    return {"tools": tuple(tools)}


def _read_plain(text: bytes, wire: Wire) -> Tool | None:
    plain = _plain_function(text)
    if plain is None:
        return None
    schema = bytes(plain.parametersJsonSchema)
    return remember(Tool(plain.name, plain.description, None if schema in _NO_SCHEMA else schema), wire.api, text)


def _read_function(text: bytes, place: str, wire: Wire) -> Tool:
    function = Spelled(text, place, wire.fail)
    schema = function.raw("parametersJsonSchema")
    if schema is None and (parameters := function.raw("parameters")) is not None:
        schema = to_json_schema(parameters, function.at("parameters"), wire.fail)
    tool = Tool(function.need("name", STRING), function.take("description", STRING), schema, extra=function.rest())
    return remember(tool, wire.api, text)


def write_tools(chat: ChatRequest, wire: Wire, _: Mapping[str, JSONText]) -> Changes:
    """One entry for all functions, one for each tool that Google runs."""
    functions: list[bytes] = []
    others: list[bytes] = []
    for index, tool in enumerate(chat.tools):
        if (kept := wire.kept(tool.raw)) is not None:
            (functions if isinstance(tool, Tool) else others).append(kept)
            continue
        place = f"tools[{index}]"
        if isinstance(tool, BuiltinTool):
            found = wire.attempt(lambda tool=tool, place=place: _write_builtin(tool, place, wire))  # type: ignore[misc]
            others += [] if found is None else [found]
        elif (text := _write_function(tool, place, wire)) is not None:
            functions.append(text)
    entries = [join_object({"functionDeclarations": join_array(functions)})] if functions else []
    return {"tools": join_array(entries + others) if entries or others else None}


def _write_builtin(tool: BuiltinTool, place: str, wire: Wire) -> bytes:
    """Web search is the one tool that several providers run; where and how often, only the others can be told."""
    if tool.kind.startswith("web_search"):
        asked = _decoded(tool.raw.text, place, wire)
        _refuse_limits(asked, place, wire)
        filters = asked.get("filters")
        _refuse_limits(filters if isinstance(filters, dict) else {}, f"{place}.filters", wire)
        _refuse_others(asked, place, wire)
        if asked.get("search_context_size") is not None:
            wire.convert(f"{place}.search_context_size", "dropped")
        wire.convert(place, "converted")
        return join_object({_SEARCH: b"{}"})
    raise unsupported(place, f"the provider-run tool {tool.kind!r} of another protocol")


def _refuse_limits(asked: Mapping[str, object], place: str, wire: Wire) -> None:
    for name in _LIMITS:
        if asked.get(name) not in _NO_LIMIT:
            wire.refuse(f"{place}.{name}", f"the {name} of a web search")


def _refuse_others(asked: Mapping[str, object], place: str, wire: Wire) -> None:
    """What else OpenAI's search is told: what is so anyway, where its pages come from, and what nobody here knows."""
    for name, value in asked.items():
        if name == "search_content_types" and value == ["text"]:
            continue
        if name == "external_web_access":
            wire.convert(f"{place}.{name}", "dropped")
        elif name not in _SEARCH_MEMBERS and value not in _NO_LIMIT:
            wire.refuse_member(name, f"{place}.{name}")


def _decoded(text: JSONText, place: str, wire: Wire) -> dict[str, object]:
    """The members of *text* to their depth, which its reader may not have looked into. BadRequest for broken ones."""
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise wire.fail(place, "a JSON object") from None


def _write_function(tool: Tool, place: str, wire: Wire) -> bytes | None:
    if tool.kind != "custom" and not tool.extra and not tool.strict and _NAME.fullmatch(tool.name) is not None:
        text = b'{"name":' + encode(tool.name)
        if tool.description is not None:
            text += b',"description":' + encode(tool.description)
        if tool.parameters is not None and not _is_empty(tool.parameters):
            text += b',"parametersJsonSchema":' + tool.parameters
        return text + b"}"
    is_custom = tool.kind == "custom"
    name = text_tool.sent_name(tool.name) if is_custom else tool.name
    if _NAME.fullmatch(name) is None:
        wire.refuse(f"{place}.name", "such a name of a tool")
        return None
    members = {"name": encode(name)}
    if tool.description is not None:
        members["description"] = encode(tool.description)
    if is_custom:
        wire.convert(place, "converted")
        if not text_tool.is_free(tool.format):
            wire.convert(f"{place}.format", "dropped")
        members["parametersJsonSchema"] = text_tool.SCHEMA
    elif tool.parameters is not None and not _is_empty(tool.parameters):
        members["parametersJsonSchema"] = tool.parameters
    if tool.strict and not wire.own:
        wire.convert(f"{place}.strict", "dropped")
    return join_object(members | wire.unknown(tool.extra, place))


def _is_empty(schema: JSONText) -> bool:
    """Whether *schema* is that of a function without parameters, which some models refuse to see spelt out."""
    try:
        if bytes(decode_object(schema).get("properties", b"")).startswith(b'{"'):
            return False
        members = msgspec.json.decode(schema)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    known = {"type", "properties", "additionalProperties", "required", "title", "$schema"}
    return isinstance(members, dict) and not members.get("properties") and members.keys() <= known


# -- choice --------------------------------------------------------------------------------------------------


def read_choice(members: Members, wire: Wire) -> Values:
    """`toolConfig`; of it, what is not the choice, stays unknown."""
    text = members.raw(CONFIG) or members.raw(snake(CONFIG))
    if text is None:
        return {}
    config = Spelled(text, CONFIG, wire.fail)
    calling = config.object(_CALLING)
    for name, value in config.rest(f"{CONFIG}.").items():
        members.leave(name, value)
    if calling is None:
        return {}
    mode, names = calling.take("mode", STRING), calling.take("allowedFunctionNames", STRINGS)
    for name, value in calling.rest(f"{CONFIG}.{_CALLING}.").items():
        members.leave(name, value)
    match (mode or "AUTO").upper():
        case "ANY":
            choice = ToolChoice("named", tuple(names)) if names else ToolChoice("required")
        case "NONE":
            choice = ToolChoice("none")
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            choice = ToolChoice("allowed", tuple(names)) if names else ToolChoice("auto")
        case _:
            raise wire.fail(calling.at("mode"), "one of AUTO, ANY, NONE, VALIDATED")
    return {"tool_choice": choice}


def write_choice(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    """`toolConfig` with the choice, its other members as they were."""
    if chat.tool_choice is None and not before and (wire.own or not _searches_among_functions(chat)):
        return {}
    name = spelled(CONFIG, before)
    text = before.get(name, b"{}")
    has_functions = any(isinstance(tool, Tool) for tool in chat.tools)
    choice = chat.tool_choice
    if not wire.own:
        check_choice(chat)
    if not wire.own and not has_functions and choice is not None and choice.mode in {"auto", "none"}:
        choice = None  # what goes without saying is refused where there is nothing to choose from
    texts = {tool.name for tool in chat.tools if isinstance(tool, Tool) and tool.kind == "custom"}
    changes = _calling(choice, text, texts)
    if not wire.own and _searches_among_functions(chat):
        changes[_SERVER_SIDE] = b"true"
    config = with_members(b"{}" if text == b"null" else text, changes)
    return {name: None if config.strip() == b"{}" else config}


def _calling(choice: ToolChoice | None, config: JSONText, texts: Container[str]) -> Changes:
    if choice is None:
        return {spelled(_CALLING, decode_object(config)) if config.startswith(b"{") else _CALLING: None}
    match choice.mode:
        case "auto" | "none":
            mode = choice.mode.upper()
        case "allowed":
            mode = "VALIDATED"  # the one mode that may call and may be kept to some names
        case _:
            mode = "ANY"
    members: dict[str, bytes] = {"mode": encode(mode)}
    if choice.names:
        members["allowedFunctionNames"] = encode(
            [text_tool.sent_name(name) if name in texts else name for name in choice.names]
        )
    return {_CALLING: join_object(members), snake(_CALLING): None}


def _searches_among_functions(chat: ChatRequest) -> bool:
    kinds = [type(tool) for tool in chat.tools]
    return BuiltinTool in kinds and Tool in kinds and checks_signatures(chat.model)
