"""What an assistant says: the members of its message, in requests (history) and replies alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmproxy_core.chat import (
    AudioPart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    Source,
    TextPart,
    ToolCall,
)
from llmproxy_core.wire.members import STRING, Members, array, decode, garbage
from llmproxy_core.wire.splice import encode, join_array, join_object
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.calls import read_call, read_legacy_call, write_call, write_legacy_call
from llmproxy_openai.citation import cited, written_citations
from llmproxy_openai.parts import read_part, write_part
from llmproxy_openai.reasoning_details import must_return, write_details
from llmproxy_openai.thinking import REASONING_MEMBERS, joined, provider_of, read_carried

SAID_OTHERWISE = {"tool_calls", "function_call", "refusal", "audio"}
"""Beside one of these the content may be null."""


def read_content(members: Members, wire: Wire) -> tuple[Part, ...]:
    """`content`: a string, a list of parts, or null; "" gives no part."""
    raw = members.raw("content")
    if raw is None:
        return ()
    place = members.at("content")
    if raw.startswith(b"["):
        return tuple(
            read_part(text, f"{place}[{index}]", wire) for index, text in enumerate(array(raw, place, members.fail))
        )
    text = decode(STRING, raw, place, members.fail)
    return (TextPart(text),) if text else ()


def read_answer(members: Members, wire: Wire, *, history: bool = False) -> tuple[Part, ...]:
    """
    The parts of an assistant's message, in the order thinking, content, refusal, speech, calls.

    *history*: a client sends it back, and with it perhaps what we gave it to carry.
    """
    parts: list[Part] = []
    for name in REASONING_MEMBERS:
        if (text := members.take(name, STRING)) and not parts:  # servers that send both send the same
            parts.append(ReasoningPart(text, provider=provider_of(name, wire), member=name))
    if history and (carried := read_carried(members, parts)) is not None:
        parts = carried
    content = read_content(members, wire)
    parts += cited(joined(content, wire) if history else content, members, wire)
    if refusal := members.take("refusal", STRING):
        parts.append(RefusalPart(refusal))
    if (audio := members.object("audio")) is not None:
        parts.append(_read_audio(audio))
    parts += [
        read_call(text, f"{members.at('tool_calls')}[{index}]", wire)
        for index, text in enumerate(members.array("tool_calls"))
    ]
    if (call := members.object("function_call")) is not None:
        parts.append(read_legacy_call(call))
    return tuple(parts)


def _read_audio(audio: Members) -> AudioPart:
    """Speech: in a request only the id of an earlier answer, in a reply the data and its transcript."""
    audio_id, data = audio.take("id", STRING), audio.take("data", STRING)
    source = Source(file_id=audio_id) if data is None else Source(data=data)
    return AudioPart(source, audio_id, audio.take("transcript", STRING), extra=audio.rest())


# -- writing -------------------------------------------------------------------------------------------------


def write_content(parts: Sequence[Part], place: str, wire: Wire) -> bytes:
    """A string where a string can say it, else a list of parts; "" for no part."""
    match parts:
        case ():
            return b'""'
        case (TextPart() as only,) if _is_plain(only, wire):
            return encode(only.text)
        case _:
            pass
    return join_array(write_part(part, f"{place}[{index}]", wire) for index, part in enumerate(parts))


def plain_text_of(message: Message, wire: Wire) -> str | None:
    """The text of *message* when it is one text and nothing else."""
    if len(message.content) != 1 or message.name is not None or message.prefix or message.extra:
        return None
    only = message.content[0]
    if type(only) is not TextPart or not only.text or only.citations or not _is_plain(only, wire):
        return None
    return only.text


def _is_plain(part: TextPart, wire: Wire) -> bool:
    """Whether *part* is nothing but a text here, and was no part of a list before."""
    return wire.kept(part.raw) is None and not part.extra and (part.cache is None or not wire.own)


def write_answer(parts: Sequence[Part], place: str, wire: Wire) -> dict[str, bytes]:
    """
    The members of an assistant's message that *parts* fill; always `content`, null when there is none.

    A message of another protocol that says nothing at all has an empty one.
    """
    answer = _Answer(place, wire)
    for part in parts:
        answer.add(part)
    return answer.written()


class _Answer:
    """An assistant's message being written."""

    def __init__(self, place: str, wire: Wire) -> None:
        self._place = place
        self._wire = wire
        self._members: dict[str, bytes] = {"content": b"null"}
        self._content: list[Part] = []
        self._calls: list[bytes] = []
        self._carried: list[ReasoningPart] = []

    def add(self, part: Part) -> None:
        """Take a part to its member."""
        place, wire, members = self._place, self._wire, self._members
        match part:
            case ToolCall(kind="legacy"):
                members["function_call"] = write_legacy_call(part, f"{place}.function_call", wire)
            case ToolCall():
                self._calls.append(write_call(part, f"{place}.tool_calls[{len(self._calls)}]", wire))
            case RefusalPart() if wire.kept(part.raw) is None:
                members["refusal"] = encode(part.text)
            case AudioPart(id=str()):
                members["audio"] = _write_audio(part, f"{place}.audio", wire)
            case ReasoningPart(member="thinking"):
                self._content.append(part)
            case ReasoningPart():
                self._think(part)
            case _:
                self._content.append(part)

    def _think(self, part: ReasoningPart) -> None:
        """Thinking goes back where it came from; what another provider needs back goes beside it."""
        dialect = self._wire.api.partition(".")[0]
        member = part.member
        if member is None and self._wire.own and part.provider in (None, dialect):
            member = REASONING_MEMBERS[0]
        if member is not None and part.text:
            before = self._members.get(member)
            text = part.text if before is None else decode(STRING, before, member, garbage) + part.text
            self._members[member] = encode(text)
        if must_return(part, dialect):
            self._carried.append(part)

    def written(self) -> dict[str, bytes]:
        """All members."""
        members, content = self._members, self._content
        if content:
            members["content"] = _write_said(content, f"{self._place}.content", self._wire)
        if self._calls:
            members["tool_calls"] = join_array(self._calls)
        if not content and not self._wire.own and members.keys().isdisjoint(SAID_OTHERWISE):
            members["content"] = b'""'
        if self._carried:
            members["reasoning_details"] = write_details(self._carried)
        if citations := list(written_citations(content, self._wire)):
            members["annotations"] = join_array(citations)
        return members


def content_of(parts: Iterable[Part], wire: Wire) -> list[Part]:
    """Those of an assistant's *parts* that stand in its `content`."""
    return [part for part in parts if not _stands_elsewhere(part, wire)]


def _stands_elsewhere(part: Part, wire: Wire) -> bool:
    match part:
        case ReasoningPart(member=member):
            return member != "thinking"
        case RefusalPart():
            return wire.kept(part.raw) is None
        case AudioPart(id=audio_id):
            return audio_id is not None
        case _:
            return isinstance(part, ToolCall)


def _write_said(content: Sequence[Part], place: str, wire: Wire) -> bytes:
    """Several texts of another protocol are one string: compatible servers take no list here."""
    texts = [part.text for part in content if isinstance(part, TextPart) and _is_plain(part, wire)]
    if len(texts) == len(content):
        return encode("".join(texts))
    return write_content(content, place, wire)


def _write_audio(part: AudioPart, place: str, wire: Wire) -> bytes:
    members = {"id": encode(part.id)}
    if part.source.data is not None:
        members["data"] = encode(part.source.data)
    if part.transcript is not None:
        members["transcript"] = encode(part.transcript)
    return join_object(members | wire.unknown(part.extra, place))
