"""What the model said: the items of its turn, in requests (history) and answers alike."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.carried import Carried, unseal
from llmproxy_core.chat import (
    JSONText,
    OpaquePart,
    Part,
    Raw,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    remember,
)
from llmproxy_core.wire import (
    STRING,
    Changes,
    Members,
    Wire,
    decode_array,
    decode_object,
    encode,
    join_array,
    join_object,
    plain_message,
    with_items,
    with_members,
)
from llmproxy_openai.calls import argument_text
from llmproxy_openai.responses.parts import read_content, rewrite_content
from llmproxy_openai.responses.paths import CREATE, DIALECT

BETWEEN_SUMMARIES = "\n\n"
"""What stands between the parts of a summary once they are one text."""

_TELLS_NOTHING = ("status", "phase", "namespace", "caller", "async")
"""Members of items that have a meaning to OpenAI alone; a writer of its own form keeps them where they stand."""


class AnswerReader:
    """Collects the parts that items say, one after the other."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._carried: Carried | None = None
        self.parts: list[Part] = []
        self.id: str | None = None
        """Of the first message among the items."""
        self.unknown: dict[str, JSONText] = {}
        """Members of messages that nobody knows."""

    def add(self, text: bytes, place: str) -> None:
        """Read the item written as *text*."""
        if (plain := plain_message(text)) is not None:  # of whatever role, as below
            self._carried = None
            self.parts += (TextPart(plain.content),) if plain.content else ()
            return
        members = Members(text, place, self._wire.fail)
        kind = members.take("type", STRING) or "message"
        carried, self._carried = self._carried, None
        match kind:
            case "message":
                self._message(members)
            case "reasoning":
                self._reasoning(members, text)
            case "function_call" | "custom_tool_call":
                self._call(members, text, kind, carried)
            case _:
                self.parts.append(OpaquePart(kind, Raw(self._wire.api, text)))

    def _message(self, members: Members) -> None:
        members.raw("role")
        message_id = members.take("id", STRING)
        self.id = self.id or message_id
        self.parts += read_content(members.raw("content"), members.at("content"), self._wire)
        self.unknown |= _rest(members)

    def _reasoning(self, members: Members, text: bytes) -> None:
        """Thinking; what another provider needs back was carried in the place of OpenAI's own."""
        item_id, encrypted = members.take("id", STRING), members.take("encrypted_content", STRING)
        summary, content = _texts(members, "summary"), _texts(members, "content")
        carried = None if encrypted is None else unseal(encrypted)
        if carried is None:
            part = ReasoningPart(
                content or summary,
                summary=not content,
                id=item_id,
                encrypted=encrypted,
                provider=DIALECT,
                extra=_rest(members),
            )
        elif carried.of_call:
            self._carried = carried
            return
        else:
            part = ReasoningPart(
                content or summary,
                id=carried.id,
                signature=carried.signature,
                redacted=carried.redacted,
                encrypted=carried.encrypted,
                provider=carried.provider or None,
            )
        self.parts.append(remember(part, self._wire.api, text))

    def _call(self, members: Members, text: bytes, kind: str, carried: Carried | None) -> None:
        """A call; *carried*, which stood right before it, is its own unless it names another."""
        custom = kind == "custom_tool_call"
        name = text_member(custom=custom)
        call_id = members.need("call_id", STRING)
        call = ToolCall(
            call_id,
            members.need("name", STRING),
            argument_text(members.raw(name), members.at(name), self._wire),
            "custom" if custom else "function",
            item_id=members.take("id", STRING),
            signature=carried.signature if carried is not None and carried.id in {None, call_id} else None,
            extra=_rest(members),
        )
        self.parts.append(remember(call, self._wire.api, text))


def text_member(*, custom: bool) -> str:
    """The member of a call that holds what the model wrote for the tool."""
    return "input" if custom else "arguments"


def _texts(members: Members, name: str) -> str:
    place = members.at(name)
    pieces = [Members(text, place, members.fail).take("text", STRING) or "" for text in members.array(name)]
    return BETWEEN_SUMMARIES.join(pieces)


def _rest(members: Members) -> dict[str, JSONText]:
    for name in _TELLS_NOTHING:
        members.raw(name)
    return members.rest()


# -- writing again -------------------------------------------------------------------------------------------


def rewrite_items(
    texts: Sequence[bytes], was: Sequence[Part], now: Sequence[Part], place: str, wire: Wire
) -> list[bytes] | None:
    """The items *texts*, read as *was*, with *now* in their place; None when these are not the same kinds of parts."""
    if [type(part) for part in was] != [type(part) for part in now]:
        return None
    items: list[bytes] = []
    start = 0
    for text in texts:
        reader = AnswerReader(wire)
        reader.add(text, place)
        end = start + len(reader.parts)
        item = _rewrite_item(text, was[start:end], now[start:end], place, wire)
        if item is None:
            return None
        items.append(item)
        start = end
    return items if start == len(now) else None


def _rewrite_item(text: bytes, was: Sequence[Part], now: Sequence[Part], place: str, wire: Wire) -> bytes | None:
    if list(was) == list(now):
        return text
    match now:
        case (ToolCall() as call,):
            return with_members(text, _call_changes(call))
        case (ReasoningPart() as part,):
            return _rewrite_reasoning(text, part)
        case (OpaquePart() as part,):
            return wire.kept(part.raw)
        case _ if all(isinstance(part, TextPart | RefusalPart) for part in now):
            content = bytes(decode_object(text)["content"])
            return with_members(text, {"content": rewrite_content(content, was, now, place, wire, spoken=True)})
        case _:
            return None


def _call_changes(call: ToolCall) -> Changes:
    return {
        "call_id": encode(call.id),
        "name": encode(call.name),
        text_member(custom=call.kind == "custom"): encode(call.arguments),
    }


def _rewrite_reasoning(text: bytes, part: ReasoningPart) -> bytes:
    """The thinking is said once: in the member that it was read from."""
    members = decode_object(text)
    summary = part.summary or "content" not in members
    said = join_array([thinking_part(part.text, summary=summary)] if part.text else [])
    if summary:
        return with_members(text, {"summary": said})
    return with_members(text, {"summary": b"[]", "content": said})


def thinking_part(text: str, *, summary: bool) -> bytes:
    """A part of a reasoning item."""
    kind = b'"summary_text"' if summary else b'"reasoning_text"'
    return join_object({"type": kind, "text": encode(text)})


# -- telling again -------------------------------------------------------------------------------------------


def retold(output: bytes, items: Sequence[bytes]) -> bytes:
    """The provider's list *output*, its items saying what *items* say; these themselves, where they are others."""
    wire = Wire(CREATE.form, own=True)
    texts = [bytes(text) for text in decode_array(output)]
    was, now = (AnswerReader(wire), AnswerReader(wire))
    for text in texts:
        was.add(text, "output")
    for text in items:
        now.add(text, "output")
    if len(texts) != len(items) or len(was.parts) != len(now.parts):
        return join_array(items)
    said = [_saying(old, new) for old, new in zip(was.parts, now.parts, strict=True)]
    again = rewrite_items(texts, was.parts, said, "output", wire)
    return join_array(items) if again is None else with_items(output, again)


def _saying(was: Part, now: Part) -> Part:
    """*was* with the text of *now*; *now* where they are not of one kind."""
    match was, now:
        case TextPart(), TextPart() if was.text != now.text:
            return attrs.evolve(was, text=now.text)
        case RefusalPart(), RefusalPart() if was.text != now.text:
            return attrs.evolve(was, text=now.text)
        case ReasoningPart(), ReasoningPart() if was.text != now.text:
            return attrs.evolve(was, text=now.text)
        case ToolCall(), ToolCall() if was.arguments != now.arguments:
            return attrs.evolve(was, arguments=now.arguments)
        case _:
            return was if type(was) is type(now) else now
