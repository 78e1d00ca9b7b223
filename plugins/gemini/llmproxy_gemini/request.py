"""Requests: their head, their meaning, and their bytes with the fewest changes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llmproxy_core import RequestHead, Translation
from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire import (
    STRING,
    Changes,
    Form,
    Group,
    Members,
    Values,
    Wire,
    bad_request,
    decode,
    decode_object,
    encode,
    read_parameters,
    read_request,
    scan,
    unsaid,
    with_members,
    write_request,
)
from llmproxy_gemini.apis import FORM
from llmproxy_gemini.config_form import CONFIG, GENERATION
from llmproxy_gemini.contents_read import read_messages
from llmproxy_gemini.contents_write import write_messages
from llmproxy_gemini.model_kind import bare
from llmproxy_gemini.spelling import snake, spelled
from llmproxy_gemini.tools import CONFIG as TOOL_CONFIG
from llmproxy_gemini.tools import read_choice, read_tools, write_choice, write_tools

_CONTAINERS = (CONFIG, TOOL_CONFIG)


def _read_model(members: Members, _: Wire) -> Values:
    """The path names the model; some clients repeat it in the body."""
    name = members.take("model", STRING)
    return {"model": None if name is None else bare(name)}


def _write_model(chat: ChatRequest, _: Wire, before: Mapping[str, JSONText]) -> Changes:
    return {"model": named(chat.model)} if "model" in before and chat.model is not None else {}


def named(model: str) -> JSONText:
    """A model's name as bodies have it, with its folder."""
    return encode(model if model.startswith(("models/", "tunedModels/")) else f"models/{model}")


def _serial(chat: ChatRequest, wire: Wire, _: Mapping[str, JSONText]) -> Changes:
    """Calls may always be parallel here: who wants one at a time is told that nobody was told."""
    if chat.parallel_tool_calls is False and chat.tools:
        wire.convert("parallel_tool_calls", "dropped")
    return {}


def _verbosity(chat: ChatRequest, wire: Wire, _: Mapping[str, JSONText]) -> Changes:
    if chat.verbosity not in {None, "medium"}:
        wire.refuse("verbosity", "the field 'verbosity'")
    return {}


def _service_tier(members: Members, _: Wire) -> Values:
    return {"service_tier": members.take("serviceTier", STRING) or members.take("service_tier", STRING)}


def _write_service_tier(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    """Another provider's tier is another thing, at another price."""
    if not wire.own:
        if chat.service_tier not in (None, "auto") and wire.translation is not None:
            wire.translation.advise("service_tier")
        return {}
    tier = None if chat.service_tier is None else encode(chat.service_tier)
    return {spelled("serviceTier", before): tier}


def _nothing(members: Members, wire: Wire) -> Values:
    return {}


REQUEST_FORM: Form = (
    Group(("model",), _read_model, _write_model, frozenset({"model"})),
    Group(("messages",), read_messages, write_messages),
    GENERATION,
    Group(("tools",), read_tools, write_tools, frozenset({"tools"}), says_nothing=True),
    Group(("tool_choice",), read_choice, write_choice, frozenset({TOOL_CONFIG, snake(TOOL_CONFIG)})),
    Group(("parallel_tool_calls",), _nothing, _serial, frozenset(), says_nothing=True),
    Group(("verbosity",), _nothing, _verbosity, frozenset(), says_nothing=True),
    Group(
        ("service_tier",),
        _service_tier,
        _write_service_tier,
        frozenset({"serviceTier", "service_tier"}),
        says_nothing=True,
    ),
    unsaid("cache"),
)
"""The members of a call."""


def read_head(body: bytes, *, streams: bool) -> RequestHead:
    """Check *body* strictly. Whether it streams is said by the path, and every stream tells its usage."""
    top = scan(body)
    head = RequestHead(stream=streams, wants_usage=streams)
    if (text := top.text("model")) is not None:
        head.model = bare(decode(STRING, text, "model", bad_request))
    return head


def read_chat(body: bytes) -> ChatRequest:
    """The conversation in *body*."""
    return read_request(FORM, REQUEST_FORM, body)


def read_call_parameters(body: bytes) -> ChatRequest:
    """See Dialect.read_parameters."""
    return read_parameters(FORM, REQUEST_FORM, body)


def write_chat(chat: ChatRequest, translation: Translation | None = None) -> bytes:
    """*chat* as a body. Unknown members of nested objects go back into them."""
    origin = chat.origin
    before: Mapping[str, JSONText] = {}
    if origin is not None:
        if origin.api != FORM or not isinstance(origin.value, ChatRequest) or chat.extra is origin.value.extra:
            return write_request(FORM, REQUEST_FORM, chat, translation)
        before = origin.value.extra
    flat = {name: text for name, text in chat.extra.items() if _container(name) is None}
    body = write_request(FORM, REQUEST_FORM, attrs.evolve(chat, extra=flat), translation)
    changes: Changes = {name: None for name in before if _container(name) is not None and name not in chat.extra}
    changes |= {name: text for name, text in chat.extra.items() if name not in flat and before.get(name) != text}
    for name, text in changes.items():
        body = _with_nested(body, name.split("."), text)
    return body


def _container(name: str) -> str | None:
    first, dot, _ = name.partition(".")
    return first if dot and first in _CONTAINERS else None


def _with_nested(text: bytes, path: list[str], value: JSONText | None) -> bytes:
    """The object *text* with the member at *path* set, or removed where *value* is None."""
    name, *deeper = path
    if not deeper:
        return with_members(text, {name: value})
    members = decode_object(text)
    name = spelled(name, members)
    if name not in members and value is None:
        return text
    inner = bytes(members[name]) if name in members else b"{}"
    return with_members(text, {name: _with_nested(inner, deeper, value)})


def prepare(body: bytes, model: str | None) -> bytes:
    """*body* for *model*: it stands in the path, so it changes only where the body repeats it."""
    if model is None or b'"model"' not in body or "model" not in (members := decode_object(body)):
        return body
    text = named(model)
    return body if bytes(members["model"]) == text else with_members(body, {"model": text})
