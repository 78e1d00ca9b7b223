"""The forms of `POST /responses` and of `POST /responses/input_tokens`."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import msgspec

from llmproxy_core.chat import ChatRequest, JSONText, ReasoningConfig, ResponseFormat
from llmproxy_core.wire import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    STRINGS,
    Changes,
    Form,
    Group,
    Members,
    Values,
    Wire,
    decode,
    encode,
    join_object,
    json,
    unsaid,
    value,
    with_members,
)
from llmproxy_openai.chat_form import effort_of
from llmproxy_openai.responses.messages import MESSAGES
from llmproxy_openai.responses.tools import read_choice, read_tool, write_choice, write_tools

Before = Mapping[str, JSONText]

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"


# -- stream --------------------------------------------------------------------------------------------------


def _read_stream(members: Members, _: Wire) -> Values:
    """A stream always tells the usage. What it is padded with changes nothing."""
    stream = members.take("stream", BOOLEAN) or False
    if (options := members.object("stream_options")) is not None:
        members.keep(options)
    return {"stream": stream, "wants_usage": stream}


def _write_stream(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    changes: Changes = {} if chat.stream or "stream_options" not in before else {"stream_options": None}
    if chat.stream:
        return changes | {"stream": b"true"}
    return changes | {"stream": b"false" if "stream" in before else None}


# -- what is said by silence ---------------------------------------------------------------------------------


def _read_silence(members: Members, _: Wire) -> Values:
    """Members that say what is so anyway."""
    for name, word in (("background", b"false"), ("truncation", b'"disabled"')):
        if members.peek(name) == word:
            members.raw(name)
    return {}


def _write_silence(_: ChatRequest, __: Wire, ___: Before) -> Changes:
    return {}


# -- logprobs ------------------------------------------------------------------------------------------------


def _read_include(members: Members, wire: Wire) -> Values:
    """
    `include`: the probabilities, and the encrypted thinking, which is given wherever it must come back.

    What else it asks for is a word of this protocol alone, and stays a member that others do not know.
    """
    text = members.peek("include")
    if text is None or text == b"null":
        return {}
    words = decode(STRINGS, text, members.at("include"), wire.fail)
    wanted = set(words)
    if wanted <= {LOGPROBS, ENCRYPTED}:
        members.raw("include")
    return {"logprobs": True} if LOGPROBS in wanted else {}


def _write_include(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    text = before.get("include", b"null")
    wanted = [] if text == b"null" else decode(STRINGS, text, "include", wire.fail)
    others = [word for word in wanted if word != LOGPROBS]
    now = [*others, LOGPROBS] if chat.logprobs else others
    return {"include": encode(now) if now else None}


# -- tools ---------------------------------------------------------------------------------------------------


def _read_tools(members: Members, wire: Wire) -> Values:
    place = members.at("tools")
    tools = enumerate(members.array("tools"))
    return {"tools": tuple(read_tool(text, f"{place}[{index}]", wire) for index, text in tools)}


def _write_tools(chat: ChatRequest, wire: Wire, _: Before) -> Changes:
    return {"tools": write_tools(chat.tools, wire)}


def _read_choice(members: Members, wire: Wire) -> Values:
    text = members.peek("tool_choice")
    if text is None or text == b"null" or not (choice := read_choice(text, wire, members)):
        return {}
    members.raw("tool_choice")
    return {"tool_choice": choice}


def _write_choice(chat: ChatRequest, _: Wire, __: Before) -> Changes:
    return {"tool_choice": None if chat.tool_choice is None else write_choice(chat.tool_choice, chat.tools)}


# -- the form of the text ------------------------------------------------------------------------------------


def _read_text(members: Members, wire: Wire) -> Values:
    """`text`: a form that nobody knows leaves the whole member as it is."""
    text = members.peek("text")
    if text is None or text == b"null":
        return {}
    outer = Members(text, members.at("text"), wire.fail)
    values: Values = {"verbosity": outer.take("verbosity", STRING)}
    if (form := outer.object("format")) is not None:
        if (found := _read_format(form)) is None:
            return {}
        values["response_format"] = found
        members.keep(form)
    members.raw("text")
    members.keep(outer)
    return values


def _read_format(form: Members) -> ResponseFormat | None:
    match form.need("type", STRING):
        case "text" | "json_object" as kind:
            return ResponseFormat(kind)
        case "json_schema":
            return ResponseFormat(
                "json_schema",
                name=form.take("name", STRING),
                schema=form.raw("schema"),
                strict=form.take("strict", BOOLEAN),
                description=form.take("description", STRING),
            )
        case _:
            return None


def _write_text(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    changes: Changes = {
        "format": None if chat.response_format is None else _write_format(chat.response_format),
        "verbosity": None if chat.verbosity is None else encode(chat.verbosity),
    }
    return {"text": _object(before.get("text"), changes)}


def _write_format(wanted: ResponseFormat) -> bytes:
    members = {"type": encode(wanted.kind)}
    if wanted.kind == "json_schema":
        members["name"] = encode(wanted.name or "answer")
        if wanted.description is not None:
            members["description"] = encode(wanted.description)
        if wanted.schema is not None:
            members["schema"] = wanted.schema
        if wanted.strict is not None:
            members["strict"] = encode(wanted.strict)
    return join_object(members)


# -- thinking ------------------------------------------------------------------------------------------------


def _read_reasoning(members: Members, _: Wire) -> Values:
    """How OpenAI's models are to think beyond that (`context`, `mode`) is nothing to others, who leave it out."""
    asked = members.object("reasoning")
    if asked is None:
        return {}
    effort, old = asked.take("effort", STRING), asked.take("generate_summary", STRING)
    summary = asked.take("summary", STRING) or old
    members.keep(asked)
    if effort is None and summary is None:
        return {}
    return {"reasoning": ReasoningConfig(effort, summary=summary, include=None if summary is None else True)}


def _write_reasoning(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    asked = chat.reasoning
    if asked is None:
        return {"reasoning": None}
    effort = effort_of(asked)
    summary = asked.summary or ("auto" if asked.include else None)
    changes: Changes = {
        "effort": None if effort is None else encode(effort),
        "summary": None if summary is None else encode(summary),
    }
    return {"reasoning": _object(before.get("reasoning"), changes)}


def _object(before: JSONText | None, changes: Changes) -> JSONText | None:
    """The object *before* with *changes*; None when nothing is in it."""
    text = with_members(b"{}" if before is None or before == b"null" else before, changes)
    return text if msgspec.json.decode(text) else None


# -- forms ---------------------------------------------------------------------------------------------------

ASKED: Form = (
    value("model", STRING),
    MESSAGES,
    Group(("tools",), _read_tools, _write_tools, frozenset({"tools"}), says_nothing=True),
    Group(("tool_choice",), _read_choice, _write_choice, frozenset({"tool_choice"}), says_nothing=True),
    value("parallel_tool_calls", BOOLEAN),
    Group(("response_format", "verbosity"), _read_text, _write_text, frozenset({"text"}), says_nothing=True),
    Group(("reasoning",), _read_reasoning, _write_reasoning, frozenset({"reasoning"}), says_nothing=True),
    Group((), _read_silence, _write_silence, frozenset({"background", "truncation"}), says_nothing=True),
    unsaid("cache"),
)

FORM: Form = (
    *ASKED,
    Group(("stream", "wants_usage"), _read_stream, _write_stream, frozenset({"stream", "stream_options"})),
    value("max_output_tokens", INTEGER),
    value("temperature", NUMBER),
    value("top_p", NUMBER),
    Group(("logprobs",), _read_include, _write_include, frozenset({"include"}), says_nothing=True),
    value("top_logprobs", INTEGER),
    value("user", STRING, "user", "safety_identifier"),
    json("metadata"),
    value("service_tier", STRING),
    value("store", BOOLEAN),
    value("cache_key", STRING, "prompt_cache_key"),
)

_COUNTED = {field for group in ASKED for field in group.fields}

COUNT_FORM: Form = (
    *ASKED,
    # How it would be answered is nothing to a count.
    unsaid(*(field.name for field in attrs.fields(ChatRequest) if field.name not in {*_COUNTED, "extra", "origin"})),
)
