"""The form of `POST /chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_core.chat import ChatRequest, JSONText, ReasoningConfig, ResponseFormat, Tool, ToolChoice
from llmproxy_core.wire.form import Changes, Form, Group, Values, json, strings, unsaid, value
from llmproxy_core.wire.members import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    STRING_OR_STRINGS,
    STRINGS,
    Members,
)
from llmproxy_core.wire.splice import encode, join_object, with_members
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.messages import read_messages, write_messages
from llmproxy_openai.model_family import family_of
from llmproxy_openai.tools import (
    read_choice,
    read_legacy_choice,
    read_legacy_tool,
    read_tool,
    write_choice,
    write_legacy_choice,
    write_tools,
)

Before = Mapping[str, JSONText]


# -- messages ------------------------------------------------------------------------------------------------


def _read_messages(members: Members, wire: Wire) -> Values:
    if members.peek("messages") in {None, b"null"}:
        raise wire.fail("messages", "a list of messages")
    return {"messages": read_messages(members.array("messages"), members.at("messages"), wire)}


def _write_messages(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    origin = chat.origin.value if before and chat.origin is not None else None
    was = origin.messages if isinstance(origin, ChatRequest) else ()
    return {"messages": write_messages(chat.messages, before.get("messages"), wire, was)}


# -- stream --------------------------------------------------------------------------------------------------


def _read_stream(members: Members, _: Wire) -> Values:
    stream = members.take("stream", BOOLEAN) or False
    options = members.object("stream_options")
    asks = options is not None and options.take("include_usage", BOOLEAN)
    if options is not None:
        members.keep(options)
    return {"stream": stream, "wants_usage": stream and bool(asks)}


def _write_stream(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    stream = b"true" if chat.stream else (b"false" if "stream" in before else None)
    return {"stream": stream} | stream_options(chat.stream, chat.wants_usage, before.get("stream_options"))


def stream_options(stream: bool, wants_usage: bool, before: JSONText | None) -> Changes:
    """`stream_options`, which OpenAI refuses on a plain request; its other members stay."""
    if not stream:
        return {"stream_options": None}
    options = before if before is not None and before != b"null" else None
    if options is None and not wants_usage:
        return {}
    return {"stream_options": with_members(options or b"{}", {"include_usage": encode(wants_usage)})}


# -- tools ---------------------------------------------------------------------------------------------------


def _read_tools(members: Members, wire: Wire) -> Values:
    tools = [
        read_tool(text, f"{members.at('tools')}[{index}]", wire) for index, text in enumerate(members.array("tools"))
    ]
    functions = [
        read_legacy_tool(text, f"{members.at('functions')}[{index}]", wire)
        for index, text in enumerate(members.array("functions"))
    ]
    return {"tools": (*tools, *functions)}


def _write_tools(chat: ChatRequest, wire: Wire, _: Before) -> Changes:
    return write_tools(chat.tools, wire)


def _read_choice(members: Members, wire: Wire) -> Values:
    """
    A form nobody knows is not taken, so that it stays an unknown member.

    Where both members say something, the modern one counts.
    """
    found: list[ToolChoice] = []
    for name, read in (("tool_choice", read_choice), ("function_call", read_legacy_choice)):
        text = members.peek(name)
        if text is None or text == b"null":
            continue
        if (choice := read(text, members.at(name), wire, members)) is None:
            break
        members.raw(name)
        found.append(choice)
    return {"tool_choice": found[0]} if found else {}


def _write_choice(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    choice = chat.tool_choice
    changes: Changes = {"tool_choice": None, "function_call": None}
    if choice is None:
        return changes
    all_legacy = bool(chat.tools) and all(isinstance(each, Tool) and each.kind == "legacy" for each in chat.tools)
    if all_legacy or ("function_call" in before and "tool_choice" not in before):
        return changes | {"function_call": write_legacy_choice(choice)}
    return changes | {"tool_choice": write_choice(choice, chat.tools)}


# -- answer format -------------------------------------------------------------------------------------------


def _read_format(members: Members, wire: Wire) -> Values:
    text = members.peek("response_format")
    if text is None or text == b"null":
        return {}
    outer = Members(text, members.at("response_format"), wire.fail)
    match outer.need("type", STRING):
        case "text":
            found = ResponseFormat("text")
        case "json_object":
            found = ResponseFormat("json_object")
        case "json_schema":
            schema = outer.need_object("json_schema")
            found = ResponseFormat(
                "json_schema",
                name=schema.take("name", STRING),
                schema=schema.raw("schema"),
                strict=schema.take("strict", BOOLEAN),
                description=schema.take("description", STRING),
            )
            members.keep(schema)
        case _:  # a grammar, a regular expression: some server's own
            return {}
    members.raw("response_format")
    members.keep(outer)
    return {"response_format": found}


def _write_format(chat: ChatRequest, _: Wire, __: Before) -> Changes:
    wanted = chat.response_format
    if wanted is None:
        return {"response_format": None}
    members = {"type": encode(wanted.kind)}
    if wanted.kind == "json_schema":
        schema = {"name": encode(wanted.name or "answer")}
        if wanted.description is not None:
            schema["description"] = encode(wanted.description)
        if wanted.schema is not None:
            schema["schema"] = wanted.schema
        if wanted.strict is not None:
            schema["strict"] = encode(wanted.strict)
        members["json_schema"] = join_object(schema)
    return {"response_format": join_object(members)}


# -- thinking ------------------------------------------------------------------------------------------------

# Token budgets of the protocols that count, as words of those that do not; the widespread split of gateways.
_EFFORTS = ((0, "none"), (2_048, "low"), (8_192, "medium"))


def _read_reasoning(members: Members, _: Wire) -> Values:
    effort = members.take("reasoning_effort", STRING)
    return {"reasoning": None if effort is None else ReasoningConfig(effort)}


def _write_reasoning(chat: ChatRequest, _: Wire, __: Before) -> Changes:
    effort = None if chat.reasoning is None else effort_of(chat.reasoning)
    return {"reasoning_effort": None if effort is None else encode(effort)}


def effort_of(reasoning: ReasoningConfig) -> str | None:
    """The effort as a word; None where the model is to choose."""
    budget = reasoning.budget_tokens
    if reasoning.effort is not None or budget is None or budget < 0:
        return reasoning.effort
    return next((word for bound, word in _EFFORTS if budget <= bound), "high")


# -- bounds --------------------------------------------------------------------------------------------------

_CAPS = ("max_completion_tokens", "max_tokens")


def _read_cap(members: Members, _: Wire) -> Values:
    found = [members.take(name, INTEGER) for name in _CAPS]
    return {"max_output_tokens": next((each for each in found if each is not None), None)}


def _write_cap(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    """By the client's own name for it; by the old one to servers that may not know the new one."""
    used = [name for name in _CAPS if before.get(name, b"null") != b"null"]
    is_new = wire.own or family_of(chat.model).bounds_thinking
    text = None if chat.max_output_tokens is None else encode(chat.max_output_tokens)
    return dict.fromkeys(used or _CAPS[0 if is_new else 1 :][:1], text)


MODEL = value("model", STRING)
MESSAGES = Group(("messages",), _read_messages, _write_messages)
RESPONSE_FORMAT = Group(
    ("response_format",), _read_format, _write_format, frozenset({"response_format"}), says_nothing=True
)
REASONING = Group(("reasoning",), _read_reasoning, _write_reasoning, frozenset({"reasoning_effort"}), says_nothing=True)
STREAM = Group(("stream", "wants_usage"), _read_stream, _write_stream, frozenset({"stream", "stream_options"}))
SAMPLING: Form = (
    value("temperature", NUMBER),
    value("top_p", NUMBER),
    value("frequency_penalty", NUMBER),
    value("presence_penalty", NUMBER),
    value("seed", INTEGER),
    strings("stop", STRING_OR_STRINGS),
    value("n", INTEGER),
    json("logit_bias"),
)
TOOLS: Form = (
    Group(("tools",), _read_tools, _write_tools, frozenset({"tools", "functions"}), says_nothing=True),
    Group(
        ("tool_choice",), _read_choice, _write_choice, frozenset({"tool_choice", "function_call"}), says_nothing=True
    ),
    value("parallel_tool_calls", BOOLEAN),
)

CHAT_FORM: Form = (
    MODEL,
    MESSAGES,
    STREAM,
    Group(("max_output_tokens",), _read_cap, _write_cap, frozenset(_CAPS), says_nothing=True),
    *SAMPLING,
    value("logprobs", BOOLEAN),
    value("top_logprobs", INTEGER),
    *TOOLS,
    RESPONSE_FORMAT,
    REASONING,
    value("verbosity", STRING),
    strings("modalities", STRINGS),
    json("audio"),
    json("prediction"),
    value("user", STRING, "user", "safety_identifier"),
    json("metadata"),
    value("service_tier", STRING),
    value("store", BOOLEAN),
    value("cache_key", STRING, "prompt_cache_key"),
    unsaid("cache"),
)
