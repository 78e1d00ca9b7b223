"""Whole answers for a client: written anew, and written again with the fewest changes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from llmproxy_anthropic.apis import MESSAGES
from llmproxy_anthropic.block_write import argument_object, rewritten
from llmproxy_anthropic.citation import write_citation
from llmproxy_anthropic.finish import write_finish
from llmproxy_anthropic.thinking_block import call_signature, write_for_client
from llmproxy_anthropic.usage import write_usage
from llmproxy_core import Usage
from llmproxy_core.chat import (
    AudioPart,
    ChatReply,
    Choice,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
)
from llmproxy_core.wire import (
    Changes,
    Wire,
    encode,
    join_array,
    join_object,
    made_id,
    text_signature,
    with_items,
    with_members,
)


def write_reply(reply: ChatReply) -> bytes:
    """*reply* as a message: spliced into what it was read from, or anew. Of several choices the first is given."""
    origin = reply.origin
    if origin is not None and origin.api == MESSAGES.form and isinstance(origin.value, ChatReply):
        return with_members(origin.text, _changes(reply, origin.value, origin.members["content"]))
    choice = reply.choices[0] if reply.choices else Choice(0, (), None)
    reply_id = reply.id or message_id(reply.model)
    members = {
        "id": encode(reply_id),
        "type": b'"message"',
        "role": b'"assistant"',
        "model": encode(reply.model),
        "content": join_array(_client_blocks(choice.content, reply_id)),
    }
    members |= _finish(choice)
    members["usage"] = write_usage(reply.usage or Usage())
    return join_object(members | (dict(reply.extra) if origin is None else {}))


def message_id(model: str) -> str:
    """An id for a message that came without."""
    return made_id(model, time.time_ns(), prefix="msg_")


def _finish(choice: Choice) -> dict[str, bytes]:
    called = any(isinstance(part, ToolCall) for part in choice.content)
    refused = any(isinstance(part, RefusalPart) for part in choice.content)
    return write_finish(choice.finish, called=called, refused=refused)


# -- anew ------------------------------------------------------------------------------------------------------


def _client_blocks(parts: Sequence[Part], reply_id: str) -> list[bytes]:
    wire = Wire(MESSAGES.form, own=True)
    blocks: list[bytes] = []
    # Before their texts: Claude Code takes the last block for the result of what it was asked.
    for index, part in enumerate(text_signature.apart(parts, first=True)):
        blocks += client_block(part, wire, call_id=made_id(reply_id, index, prefix="toolu_"))
    return blocks


def client_block(part: Part, wire: Wire, *, call_id: str) -> list[bytes]:
    """
    The blocks that a client is given for *part*; none for what says nothing here (steps of other providers' tools).

    *call_id* names a tool call that came without an id.
    """
    match part:
        case OpaquePart():
            return [part.raw.text] if part.raw.api == wire.api else []
        case ReasoningPart():
            block = write_for_client(part, wire, "content")
            return [] if block is None else [block]
        case TextPart() if part.text or part.citations:
            citations = [write_citation(each, wire) for each in part.citations]
            cited = {"citations": join_array(citations)} if citations else {}
            return [join_object({"type": b'"text"', "text": encode(part.text)} | cited)]
        case RefusalPart(text=text) if text:
            return [join_object({"type": b'"text"', "text": encode(text)})]
        case AudioPart(transcript=str(text)) if text:
            return [join_object({"type": b'"text"', "text": encode(text)})]
        case ToolCall():
            own_id = part.id or call_id
            carried = [] if part.signature is None else [call_signature(part.signature, own_id)]
            return [*carried, call_block(own_id, part.name, client_arguments(part))]
        case _:
            return []


def call_block(call_id: str, name: str, arguments: bytes) -> bytes:
    return join_object({"type": b'"tool_use"', "id": encode(call_id), "name": encode(name), "input": arguments})


def client_arguments(call: ToolCall) -> bytes:
    """The arguments as an object; the text that a custom tool takes goes into one."""
    if call.kind == "custom":
        return join_object({"input": encode(call.arguments)})
    return argument_object(call.arguments)


def _again(part: Part, place: str, wire: Wire) -> bytes | None:
    """A block of an answer that a processor changed."""
    if (kept := wire.kept(part.raw)) is not None:
        return kept
    blocks = client_block(part, wire, call_id=made_id(place, prefix="toolu_"))
    return blocks[-1] if blocks else None


# -- again -----------------------------------------------------------------------------------------------------


def _telling(now: Sequence[Part], was: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """*now*, and *was*, without the texts that a filter emptied: such blocks could not be sent back."""
    kept = [
        index
        for index, part in enumerate(now)
        if not (isinstance(part, TextPart) and not part.text and index < len(was) and part != was[index])
    ]
    return [now[index] for index in kept], [was[index] for index in kept if index < len(was)]


def _changes(reply: ChatReply, before: ChatReply, content: bytes) -> Changes:
    """What differs from the reply as it was read."""
    changes: Changes = {}
    for field in ("id", "model"):
        if (now := getattr(reply, field)) != getattr(before, field):
            changes[field] = encode(now)
    if reply.usage != before.usage:
        changes["usage"] = write_usage(reply.usage or Usage())
    if reply.choices != before.choices:
        now_choice = reply.choices[0] if reply.choices else Choice(0, (), None)
        was = before.choices[0]
        if now_choice.content != was.content:
            wire = Wire(MESSAGES.form, own=True)
            blocks = rewritten(*_telling(now_choice.content, was.content), "content", wire, _again)
            changes["content"] = with_items(content, blocks)
        if now_choice.finish != was.finish:
            changes |= _finish(now_choice)
    changes |= {name: None for name in before.extra if name not in reply.extra}
    return changes | {name: text for name, text in reply.extra.items() if before.extra.get(name) != text}
