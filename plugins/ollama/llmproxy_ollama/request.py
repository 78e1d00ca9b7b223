"""Requests of `/api/chat`, and of what else names a model."""

from collections.abc import Mapping

from llmproxy_core import Api, RequestHead
from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire import (
    BOOLEAN,
    INTEGER,
    STRING,
    Changes,
    Form,
    Group,
    Members,
    Values,
    Wire,
    bad_request,
    decode,
    encode,
    scan,
    unsaid,
    value,
    with_members,
)
from llmproxy_ollama.answer_format import FORMAT
from llmproxy_ollama.apis import CHAT
from llmproxy_ollama.messages import read_messages, write_messages
from llmproxy_ollama.options import OPTIONS
from llmproxy_ollama.think import THINK
from llmproxy_ollama.tools import PARALLEL, TOOLS

Before = Mapping[str, JSONText]


def _read_stream(members: Members, wire: Wire) -> Values:
    return {"stream": members.take("stream", BOOLEAN) is not False}  # who says nothing wants a stream


def _write_stream(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    return {"stream": b"true" if chat.stream else b"false"}


def _read_advice(members: Members, wire: Wire) -> Values:
    """How long the model stays loaded, what is done when it does not fit: nothing that another provider could need."""
    for name in _ADVICE:
        members.raw(name)
    return {}


_ADVICE = ("keep_alive", "truncate", "shift")


def _write_choices(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    if (chat.n or 1) > 1:
        wire.refuse("n", "several choices")
    return {}


def _write_modalities(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    if set(chat.modalities) - {"text"}:
        wire.refuse("modalities", "answers that are no text")
    return {}


def _nothing(members: Members, wire: Wire) -> Values:
    return {}


FORM: Form = (
    value("model", STRING),
    Group(("messages",), read_messages, write_messages),
    TOOLS,
    PARALLEL,
    FORMAT,
    THINK,
    Group(("stream",), _read_stream, _write_stream),
    value("logprobs", BOOLEAN),
    value("top_logprobs", INTEGER),
    OPTIONS,
    Group((), _read_advice, lambda chat, wire, before: {}, frozenset(_ADVICE), says_nothing=True),
    Group(("n",), _nothing, _write_choices, frozenset(), says_nothing=True),
    Group(("modalities",), _nothing, _write_modalities, frozenset(), says_nothing=True),
    unsaid("cache"),
)


def read_head(api: Api, body: bytes) -> RequestHead:
    top = scan(body)
    model, stream = top.text("model"), top.text("stream")
    streams = api is CHAT and (stream is None or decode(BOOLEAN, stream, "stream", bad_request))
    return RequestHead(
        model=None if model is None else decode(STRING, model, "model", bad_request),
        stream=streams,
        wants_usage=streams,  # the last line always tells it
    )


def prepare(api: Api, body: bytes, model: str | None, stream: bool | None) -> bytes:
    head = read_head(api, body)
    changes: Changes = {}
    if model not in (None, head.model):
        changes["model"] = encode(model)
    if api is CHAT and stream not in (None, head.stream):
        changes["stream"] = encode(stream)
    return with_members(body, changes) if changes else body
