"""What an assistant says: the members of its message, in requests (history) and replies alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmproxy_core.chat import (
    AudioPart,
    Citation,
    Part,
    ReasoningPart,
    RefusalPart,
    Source,
    TextPart,
    ToolCall,
    remember,
)
from llmproxy_core.wire.members import INTEGER, STRING, Members, array, decode
from llmproxy_core.wire.splice import encode, join_array, join_object
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.calls import read_call, read_legacy_call, write_call, write_legacy_call
from llmproxy_openai.parts import read_part, write_part

REASONING_MEMBERS = ("reasoning_content", "reasoning")
"""De facto members for thinking, the more widespread first (DeepSeek, vLLM; Groq, OpenRouter)."""


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


def read_answer(members: Members, wire: Wire) -> tuple[Part, ...]:
    """The parts of an assistant's message, in the order thinking, content, refusal, speech, calls."""
    parts: list[Part] = []
    for name in REASONING_MEMBERS:
        if (text := members.take(name, STRING)) and not parts:  # servers that send both send the same
            parts.append(ReasoningPart(text, member=name))
    parts += _cited(read_content(members, wire), members, wire)
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


def _cited(content: tuple[Part, ...], members: Members, wire: Wire) -> Iterable[Part]:
    """*content* with the message's annotations on its only text, which their offsets count in."""
    place = members.at("annotations")
    citations = tuple(
        read_citation(text, f"{place}[{index}]", wire) for index, text in enumerate(members.array("annotations"))
    )
    match content:
        case (TextPart(text=text),) if citations:
            return (TextPart(text, citations),)
        case () if citations:
            return (TextPart("", citations),)
    return content


def read_citation(text: bytes, place: str, wire: Wire) -> Citation:
    """One annotation: `{"type": "url_citation", "url_citation": {…}}`."""
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    cited = members.object(kind)
    if cited is None:
        citation = Citation(kind)
    else:
        citation = Citation(
            kind,
            url=cited.take("url", STRING),
            title=cited.take("title", STRING),
            start=cited.take("start_index", INTEGER),
            end=cited.take("end_index", INTEGER),
        )
    return remember(citation, wire.api, text)


def write_citation(citation: Citation, wire: Wire) -> bytes:
    """A citation as an annotation; one of another protocol becomes a `url_citation`."""
    if (kept := wire.kept(citation.raw)) is not None:
        return kept
    cited = {
        "url": encode(citation.url or ""),
        "title": encode(citation.title or citation.text or ""),
        "start_index": encode(citation.start or 0),
        "end_index": encode(citation.end or 0),
    }
    return join_object({"type": b'"url_citation"', "url_citation": join_object(cited)})


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


def _is_plain(part: TextPart, wire: Wire) -> bool:
    """Whether *part* is nothing but a text here, and was no part of a list before."""
    return wire.kept(part.raw) is None and not part.extra and (part.cache is None or not wire.own)


def write_answer(parts: Sequence[Part], place: str, wire: Wire) -> dict[str, bytes]:
    """The members of an assistant's message that *parts* fill; always `content`, null when there is none."""
    members: dict[str, bytes] = {"content": b"null"}
    content: list[Part] = []
    calls: list[bytes] = []
    for part in parts:
        match part:
            case ToolCall(kind="legacy"):
                members["function_call"] = write_legacy_call(part, f"{place}.function_call", wire)
            case ToolCall():
                calls.append(write_call(part, f"{place}.tool_calls[{len(calls)}]", wire))
            case RefusalPart() if wire.kept(part.raw) is None:
                members["refusal"] = encode(part.text)
            case AudioPart(id=str()):
                members["audio"] = _write_audio(part, f"{place}.audio", wire)
            case ReasoningPart():
                _add_reasoning(part, members, content, wire)
            case _:
                content.append(part)
    if content:
        members["content"] = _write_said(content, f"{place}.content", wire)
    if calls:
        members["tool_calls"] = join_array(calls)
    citations = [each for part in content if isinstance(part, TextPart) for each in part.citations]
    if citations:
        members["annotations"] = join_array(write_citation(each, wire) for each in citations)
    return members


def _add_reasoning(part: ReasoningPart, members: dict[str, bytes], content: list[Part], wire: Wire) -> None:
    """Thinking goes back where it came from; another provider's is nothing to this one and is left out."""
    if part.member == "thinking":
        content.append(part)
    elif part.member is not None and wire.own:
        members[part.member] = encode(part.text)


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
