"""Messages, parts and tools that are the usual ones and nothing else, as most are, read at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from llmproxy_core.chat import Message, Role, TextPart, remember

T = TypeVar("T")


class PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`{"role": …, "content": "…"}`, as several protocols spell it."""

    role: str
    content: str


class PlainText(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`{"type": …, "text": "…"}`; *type* is None where there is none."""

    text: str
    type: str | None = None


class _Spoken(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str | list[msgspec.Raw]


WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for what it does not know, or cannot be known: the careful reader tells."""


def usual(type_: type[T]) -> Callable[[Any], T | None]:
    """What decodes JSON text as *type_*; None for what is another thing, or a wrong one."""
    decode = msgspec.json.Decoder(type_).decode

    def read(text: Any) -> T | None:
        try:
            return decode(text)
        except WRONG:
            return None

    return read


def is_plain(message: Message) -> bool:
    """Whether *message* is one text that somebody says, and nothing else."""
    content = message.content
    if len(content) != 1 or message.role == "tool" or message.extra or message.prefix:
        return False
    part = content[0]
    return (
        type(part) is TextPart
        and message.name is None
        and message.id is None
        and part.cache is None
        and part.signature is None
        and not part.citations
        and not part.extra
    )


plain_message = usual(PlainMessage)
plain_text = usual(PlainText)

_decode_text = msgspec.json.Decoder(PlainText).decode
_decode_spoken = msgspec.json.Decoder(_Spoken).decode


def plain_turn(
    text: bytes, roles: Mapping[str, Role], api: str, kinds: Mapping[str, frozenset[str | None]]
) -> Message | None:
    """
    The message that *text* is: a text, or a list of parts that are texts.

    *roles* are the words for those who say such; *kinds*, for those of them whose lists are read here, the types that
    texts go by. None for another message, or a wrong one.
    """
    try:
        spoken = _decode_spoken(text)
    except WRONG:
        return None
    role, content = roles.get(spoken.role), spoken.content
    if role is None:
        return None
    if type(content) is str:
        return remember(Message(role, (TextPart(content),) if content else ()), api, text)
    if spoken.role not in kinds:
        return None
    parts = plain_parts(content, kinds[spoken.role], api)  # type: ignore[arg-type]  # a list, if no text
    return None if parts is None else remember(Message(role, parts), api, text)


def plain_parts(raws: Iterable[msgspec.Raw], kinds: frozenset[str | None], api: str) -> tuple[TextPart, ...] | None:
    """The texts, of the types *kinds*, that *raws* are; None where one of them is something else."""
    parts = []
    for raw in raws:
        text = bytes(raw)
        try:
            plain = _decode_text(text)
        except WRONG:
            return None
        if plain.type not in kinds:
            return None
        parts.append(remember(TextPart(plain.text), api, text))
    return tuple(parts)
