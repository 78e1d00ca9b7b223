"""Messages, written as `contents` and `systemInstruction`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmproxy_core.chat import ChatRequest, JSONText, Message, TextPart, changed
from llmproxy_core.wire import Changes, Wire, join_array, join_object, results_next, with_items, with_members
from llmproxy_gemini.contents_read import SYSTEM, SYSTEM_FORM
from llmproxy_gemini.part_write import write_part
from llmproxy_gemini.piece import content_of
from llmproxy_gemini.respell import spliced_content
from llmproxy_gemini.spelling import spelled
from llmproxy_gemini.turns import Turns

_SYSTEM_ROLES = frozenset({"system", "developer"})


def write_messages(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    """Both members; a system prompt that stood in the middle of the conversation goes to its beginning."""
    if not wire.own and (ordered := results_next(chat.messages)) is not chat.messages:
        wire.convert("messages", "moved")
        chat = changed(chat, messages=tuple(ordered))
    origin = chat.origin.value if before and chat.origin is not None else None
    was = origin.messages if isinstance(origin, ChatRequest) else ()
    system: list[tuple[int, Message]] = []
    said: list[tuple[int, Message]] = []
    for place, message in enumerate(chat.messages):
        (system if message.role in _SYSTEM_ROLES else said).append((place, message))
    was_said = [message for message in was if message.role not in _SYSTEM_ROLES]
    was_system = next((message for message in was if message.role in _SYSTEM_ROLES), None) if was else None
    prompt = _system(system, was_system, wire)
    if said and system and system[-1][0] > said[0][0]:
        wire.convert(f"messages[{system[-1][0]}]", "moved")
    items = _contents(said, was_said, chat, wire)
    if not items and prompt is not None:  # the protocol wants somebody to say something
        items, prompt = [with_members(prompt, {"role": b'"user"'})], None
        wire.convert("messages", "moved")
    contents = with_items(before["contents"], items) if "contents" in before else join_array(items)
    return {spelled(SYSTEM, before): prompt, "contents": contents}


def _system(messages: Sequence[tuple[int, Message]], was: Message | None, wire: Wire) -> bytes | None:
    """The system prompt: one content whose parts are all that system messages say."""
    if not messages:
        return None
    place, only = messages[0]
    if len(messages) == 1 and _is_prompt(only, wire) and only.raw is not None:
        return only.raw.text
    if len(messages) == 1 and was is not None and _is_prompt(was, wire):
        spliced = spliced_content([only], [was], f"messages[{place}]", wire)
        if spliced is not None:
            return spliced
    parts: list[bytes] = []
    for place, message in messages:
        if message.name is not None:
            wire.convert(f"messages[{place}].name", "dropped")
        if message.extra:
            wire.unknown(message.extra, f"messages[{place}]")
        for index, part in enumerate(message.content):
            if not isinstance(part, TextPart):
                wire.refuse(f"messages[{place}].content[{index}]", "anything but text in a system prompt")
            elif (text := write_part(part, f"messages[{place}].content[{index}]", wire)) is not None:
                parts.append(text)
    return join_object({"parts": join_array(parts)}) if parts else None


def _is_prompt(message: Message, wire: Wire) -> bool:
    """Whether *message* was read from `systemInstruction`."""
    return message.raw is not None and message.raw.api == wire.api + SYSTEM_FORM


def _contents(
    messages: Sequence[tuple[int, Message]], was: Sequence[Message], chat: ChatRequest, wire: Wire
) -> list[bytes]:
    """The turns: contents that were read stay as they are, or change in the parts that differ; others are made."""
    said = [message for _, message in messages]
    aligned = len(said) == len(was)
    turns = Turns(chat, wire)
    index = 0
    while index < len(said):
        if (whole := content_of(said, index, wire.api)) is not None:
            turns.keep(whole.text)
            index += whole.count
            continue
        if aligned and (old := content_of(was, index, wire.api)) is not None:
            now, before = said[index : index + old.count], was[index : index + old.count]
            if (text := spliced_content(now, before, f"messages[{messages[index][0]}]", wire)) is not None:
                turns.keep(text)
                index += old.count
                continue
        turns.add(said[index], messages[index][0])
        index += 1
    return turns.items()
