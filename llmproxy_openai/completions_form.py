"""The form of the legacy `POST /completions`: one prompt instead of a conversation."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_core.chat import ChatRequest, JSONText, Message, TextPart
from llmproxy_core.errors import Unsupported
from llmproxy_core.translation import unsupported
from llmproxy_core.wire.form import Changes, Form, Group, Values, unsaid, value
from llmproxy_core.wire.members import INTEGER, STRING, STRINGS, Members, decode
from llmproxy_core.wire.splice import encode
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.chat_form import MODEL, SAMPLING, STREAM


def _read_prompt(members: Members, wire: Wire) -> Values:
    """
    One text is a user's turn. Several prompts, and tokens in place of text, are no conversation.

    They still pass where nobody asks for their meaning.
    """
    text = members.raw("prompt")
    place = members.at("prompt")
    if text is None:
        raise wire.fail(place, "a string")
    if text.startswith(b'"'):
        return {"messages": _user(decode(STRING, text, place, wire.fail))}
    if text.startswith(b"[") and b'"' in text and len(prompts := decode(STRINGS, text, place, wire.fail)) == 1:
        return {"messages": _user(prompts[0])}
    raise Unsupported("Only a 'prompt' that is one text can be understood here", param=place)


def _user(text: str) -> tuple[Message, ...]:
    return (Message("user", (TextPart(text),)),)


def _write_prompt(chat: ChatRequest, _: Wire, before: Mapping[str, JSONText]) -> Changes:
    match chat.messages:
        case (Message(role="user", content=(TextPart(text=text),)),):
            is_list = before.get("prompt", b"").startswith(b"[")
            return {"prompt": encode([text] if is_list else text)}
        case _:
            raise unsupported("messages", "anything but one text of the user in a completion")


def _read_logprobs(members: Members, _: Wire) -> Values:
    """A number here: how many alternatives are wanted."""
    alternatives = members.take("logprobs", INTEGER)
    return {"logprobs": None if alternatives is None else True, "top_logprobs": alternatives}


def _write_logprobs(chat: ChatRequest, _: Wire, __: Mapping[str, JSONText]) -> Changes:
    return {"logprobs": encode(chat.top_logprobs or 0) if chat.logprobs else None}


COMPLETIONS_FORM: Form = (
    MODEL,
    Group(("messages",), _read_prompt, _write_prompt),
    STREAM,
    value("max_output_tokens", INTEGER, "max_tokens"),
    *SAMPLING,
    Group(("logprobs", "top_logprobs"), _read_logprobs, _write_logprobs),
    value("user", STRING),
    unsaid("cache"),
)
