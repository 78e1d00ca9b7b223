"""What an exchange says of who asks and about what, for LLMs that should stay the same for it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.request import CONVERSATIONS

Said = Callable[[Exchange], bytes | None]


def of_header(name: str) -> Said:
    """The value of the header *name*, in lower case."""

    def said(exchange: Exchange) -> bytes | None:
        value = exchange.request.headers.get(name)
        return None if value is None else value.encode()

    return said


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _WhoAsks(msgspec.Struct):
    """Where the protocols name their caller's user: OpenAI (two ways), Anthropic."""

    user: str | None = None
    safety_identifier: str | None = None
    metadata: _Metadata | None = None


_decode = msgspec.json.Decoder(_WhoAsks).decode


def of_user(exchange: Exchange) -> bytes | None:
    """The user that the request names."""
    try:
        who = _decode(exchange.request.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # it names none in a way that we know
    name = who.safety_identifier or who.user or (who.metadata and who.metadata.user_id)
    return name.encode() if name else None


def of_conversation(exchange: Exchange) -> bytes | None:
    """How the conversation begins: up to its first question, which later ones repeat."""
    request = exchange.request
    if request.operation not in CONVERSATIONS:
        return None
    try:
        messages = request.chat.messages
    except ProxyError:  # whoever cannot read it either says so, or passes it on as it is
        return None
    begun: list[str] = []
    for message in messages:
        begun.append(message.role + ":" + "".join(getattr(part, "text", "") for part in message.content))
        if message.role == "user":
            break
    return "\0".join(begun).encode() if begun else None
