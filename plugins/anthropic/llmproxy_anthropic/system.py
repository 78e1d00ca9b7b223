"""The system prompt: a string or text blocks, beside the messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmproxy_anthropic.block_read import read_blocks
from llmproxy_anthropic.block_write import rewritten, write_block
from llmproxy_core.chat import JSONText, Message, Part, TextPart, remember
from llmproxy_core.wire import Changes, Members, Wire, decode_array, encode, join_array, with_items

_BILLING = "x-anthropic-billing-header:"
"""Begins a block that Claude Code puts before its prompt: a note to Anthropic alone."""


def read_system(members: Members, wire: Wire) -> Message | None:
    """The prompt as a message; None when it says nothing to anyone but Anthropic."""
    raw = members.raw("system")
    if raw is None:
        return None
    parts = tuple(part for part in read_blocks(raw, "system", wire) if not _is_note(part))
    return remember(Message("system", parts), wire.api, raw) if parts else None


def _is_note(part: Part) -> bool:
    return isinstance(part, TextPart) and part.text.startswith(_BILLING)


def write_again(now: Sequence[Message], was: Message | None, before: JSONText | None, wire: Wire) -> Changes:
    """The change of `system` from *before*, read as *was*, to the system messages *now*."""
    if was is not None and len(now) == 1 and (now[0] is was or now[0] == was):
        return {}
    if was is None and not now:
        return {}
    parts = [part for message in now for part in message.content]
    notes = _notes(before, wire)
    if not parts and not notes:
        return {"system": None}
    is_string = before is None or before.startswith(b'"')
    if is_string and len(parts) == 1 and _is_plain(parts[0]):
        return {"system": encode(parts[0].text)}  # type: ignore[union-attr]  # a plain part is a text
    blocks = notes + rewritten(parts, () if was is None else was.content, "system", wire)
    if before is not None and before.startswith(b"["):
        return {"system": with_items(before, blocks)}
    return {"system": join_array(blocks)}


def _notes(before: JSONText | None, wire: Wire) -> list[bytes]:
    """The blocks that nobody else was shown."""
    if before is None or not before.startswith(b"["):
        return []
    texts = [bytes(text) for text in decode_array(before)]
    return [text for text in texts if all(_is_note(part) for part in read_blocks(join_array([text]), "system", wire))]


def _is_plain(part: Part) -> bool:
    return isinstance(part, TextPart) and part.cache is None and part.raw is None and not part.extra


def write_anew(messages: Iterable[Message], wire: Wire) -> bytes | None:
    """All of *messages*, wherever they stood, as one prompt; None when they say nothing."""
    parts: list[TextPart] = []
    for message in messages:
        for index, part in enumerate(message.content):
            if isinstance(part, TextPart):
                if part.text.strip():
                    parts.append(part)
            else:
                wire.refuse(f"messages.system.content[{index}]", f"a {type(part).__name__} in a system message")
    if len(parts) == 1 and parts[0].cache is None and not parts[0].extra:
        return encode(parts[0].text)
    blocks = [write_block(part, "system", wire) for part in parts]
    return join_array([block for block in blocks if block is not None]) if blocks else None
