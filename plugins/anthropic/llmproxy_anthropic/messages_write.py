"""Messages that were read from this protocol, written again: what is untouched keeps its bytes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_anthropic.block_write import rewritten
from llmproxy_anthropic.messages_read import CONTINUED
from llmproxy_core.chat import Message, Part, TextPart
from llmproxy_core.wire import Wire, decode_object, encode, join_array, join_object, with_items, with_members


@attrs.frozen
class _Unit:
    """The messages that one element of the wire's list was read as; *text* is that element."""

    text: bytes
    messages: tuple[Message, ...]


def write_again(now: Sequence[Message], was: Sequence[Message], before: bytes, wire: Wire) -> bytes:
    """The list *before*, read as *was*, with the messages *now*."""
    units = _units(was, wire)
    items: list[bytes] = []
    if len(now) == len(was):
        position = 0
        for unit in units:
            end = position + len(unit.messages)
            items.append(_rewritten(now[position:end], unit, f"messages[{len(items)}]", wire))
            position = end
        return with_items(before, items)
    by_first = {id(unit.messages[0]): unit for unit in units}
    position = 0
    while position < len(now):
        found = by_first.get(id(now[position]))
        if found is not None and _is_next(found, now, position):
            items.append(found.text)
            position += len(found.messages)
            continue
        items.append(_anew(now[position], f"messages[{position}]", wire))
        position += 1
    return join_array(items)


def _is_next(unit: _Unit, now: Sequence[Message], position: int) -> bool:
    """Whether the messages of *unit* come next, untouched, from *position* on."""
    there = now[position : position + len(unit.messages)]
    return len(there) == len(unit.messages) and all(a is b for a, b in zip(unit.messages, there, strict=True))


def _units(was: Sequence[Message], wire: Wire) -> list[_Unit]:
    units: list[tuple[bytes, list[Message]]] = []
    for message in was:
        text = wire.kept(message.raw)
        if text == CONTINUED and units:
            units[-1][1].append(message)
        elif text is not None:
            units.append((text, [message]))
    return [_Unit(text, tuple(messages)) for text, messages in units]


def _rewritten(now: Sequence[Message], unit: _Unit, place: str, wire: Wire) -> bytes:
    """The element of *unit*, whose messages have become *now*."""
    was = unit.messages
    if all(new is old or new == old for new, old in zip(now, was, strict=True)):
        return unit.text
    if any(attrs.evolve(new, content=old.content, prefix=old.prefix) != old for new, old in zip(now, was, strict=True)):
        blocks = [block for message in now for block in _blocks(message, place, wire)]
        return _element(now[0], blocks, wire, place)
    before = bytes(decode_object(unit.text)["content"])
    parts = [part for message in now for part in message.content]
    if before.startswith(b'"') and (text := _only_text(parts)) is not None:
        return with_members(unit.text, {"content": encode(text)})
    old = [part for message in was for part in message.content]
    blocks = rewritten(parts, old, f"{place}.content", wire)
    content = with_items(before, blocks) if before.startswith(b"[") else join_array(blocks)
    return with_members(unit.text, {"content": content})


def _only_text(parts: Sequence[Part]) -> str | None:
    match parts:
        case (TextPart(text=text, cache=None, citations=(), raw=None),):
            return text
        case _:
            return None


def _anew(message: Message, place: str, wire: Wire) -> bytes:
    if (text := _only_text(message.content)) is not None:
        return join_object(
            {"role": encode(_role(message)), "content": encode(text)} | wire.unknown(message.extra, place)
        )
    return _element(message, _blocks(message, place, wire), wire, place)


def _element(message: Message, blocks: Sequence[bytes], wire: Wire, place: str) -> bytes:
    members = {"role": encode(_role(message)), "content": join_array(blocks)}
    return join_object(members | wire.unknown(message.extra, place))


def _role(message: Message) -> str:
    return {"tool": "user", "developer": "system"}.get(message.role, message.role)


def _blocks(message: Message, place: str, wire: Wire) -> list[bytes]:
    return rewritten(message.content, (), f"{place}.content", wire)
