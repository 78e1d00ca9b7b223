"""
Tools that take a text, which Gemini does not know: they take an object with that text in it.

Their names tell what they are when the model calls them: a dialect remembers nothing of the request when it reads the
answer.
"""

from __future__ import annotations

import msgspec

from llmproxy_core.wire import encode, join_object

_PREFIX = "llmproxy_text_"
SCHEMA = b'{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}'

_decode = msgspec.json.Decoder(dict[str, str]).decode


def sent_name(name: str) -> str:
    """What a tool that takes a text is called here."""
    return _PREFIX + name


def clients_name(name: str) -> str | None:
    """The client's name of a tool that takes a text; None: it is an ordinary one."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None


def read_text(arguments: str) -> str:
    """The text that it is called with; arguments of another form as they are."""
    try:
        return _decode(arguments)["text"]
    except (msgspec.MsgspecError, UnicodeError, KeyError):
        return arguments


def write_text(text: str) -> bytes:
    """The arguments that hold *text*."""
    return join_object({"text": encode(text)})
