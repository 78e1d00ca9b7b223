"""
Tools of our own making, for what Anthropic's protocol says otherwise than the client's.

An older model gives an answer in a JSON Schema only as the input of a tool that it must call; a tool that takes a text
takes an object with that text in it. Their names tell what is what when the model calls them: a dialect remembers
nothing of the request when it reads the answer.
"""

from __future__ import annotations

import msgspec

from llmproxy_core.wire import encode, join_object

ANSWER = "llmproxy_structured_answer"
_CUSTOM = "llmproxy_text_"
_TEXT = "text"
TEXT_SCHEMA = b'{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}'
_LONGEST_NAME = 128

_decode = msgspec.json.Decoder(dict[str, str]).decode


def is_answer(name: str) -> bool:
    """Whether a call of *name* is the answer itself."""
    return name == ANSWER


def answer_text(arguments: bytes) -> str:
    """The answer as text."""
    return arguments.decode()


def custom_name(name: str) -> str | None:
    """The client's name of a tool that takes a text; None: it is an ordinary one."""
    return name.removeprefix(_CUSTOM) if name.startswith(_CUSTOM) else None


def own_custom_name(name: str) -> str | None:
    """How we call the client's tool *name*, which takes a text; None when that would be too long."""
    own = _CUSTOM + name
    return own if len(own) <= _LONGEST_NAME else None


def custom_text(arguments: bytes) -> str:
    """The text that a custom tool is called with; what has another form is given as it is."""
    try:
        return _decode(arguments)[_TEXT]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        return arguments.decode()


def custom_arguments(text: str) -> bytes:
    return join_object({_TEXT: encode(text)})
