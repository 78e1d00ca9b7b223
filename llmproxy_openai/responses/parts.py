"""Content parts of messages and of tools' answers: `input_text`, `output_text` and their kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import msgspec

from llmproxy_core.chat import (
    AudioPart,
    CacheMark,
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    Raw,
    RefusalPart,
    Source,
    TextPart,
    remember,
)
from llmproxy_core.translation import unsupported
from llmproxy_core.wire import (
    STRING,
    Changes,
    Members,
    Wire,
    array,
    decode,
    decode_array,
    decode_object,
    encode,
    join_array,
    join_object,
    nested,
    plain_text,
    with_items,
    with_members,
)
from llmproxy_openai.parts import data_url, source_of_url
from llmproxy_openai.responses.citations import read_citation, write_citation

_CACHE = "prompt_cache_breakpoint"

# -- reading -------------------------------------------------------------------------------------------------


TEXTS = {"input_text", "output_text", "text"}


def read_content(raw: bytes | None, place: str, wire: Wire) -> tuple[Part, ...]:
    """A string, a list of parts, or nothing; "" gives no part."""
    if raw is None:
        return ()
    if raw.startswith(b"["):
        items = enumerate(array(raw, place, wire.fail))
        return tuple(read_part(text, f"{place}[{index}]", wire) for index, text in items)
    text = decode(STRING, raw, place, wire.fail)
    return (TextPart(text),) if text else ()


def read_part(text: bytes, place: str, wire: Wire) -> Part:
    """The part written as *text*; of an unknown type an OpaquePart, which only this wire form understands."""
    plain = plain_text(text)
    if plain is not None and plain.type in TEXTS:
        return remember(TextPart(plain.text), wire.api, text)
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    if kind in TEXTS:
        return remember(_text(members, wire), wire.api, text)
    read = _READERS.get(kind)
    if read is None:
        return OpaquePart(kind, Raw(wire.api, text))
    return remember(read(members), wire.api, text)


def _text(members: Members, wire: Wire) -> Part:
    place = members.at("annotations")
    annotations = enumerate(members.array("annotations"))
    citations = tuple(read_citation(text, f"{place}[{index}]", wire) for index, text in annotations)
    members.raw("logprobs")
    return TextPart(members.need("text", STRING), citations, _cache(members), extra=members.rest())


def _refusal(members: Members) -> Part:
    return RefusalPart(members.need("refusal", STRING), extra=members.rest())


def _image(members: Members) -> Part:
    url, file_id = members.take("image_url", STRING), members.take("file_id", STRING)
    if url is None and file_id is None:
        raise members.fail(members.at("image_url"), "there, or 'file_id'")
    source = Source(file_id=file_id) if url is None else source_of_url(url)
    return ImagePart(source, members.take("detail", STRING), _cache(members), extra=members.rest())


def _file(members: Members) -> Part:
    file_id, url, data = (members.take(name, STRING) for name in ("file_id", "file_url", "file_data"))
    if file_id is not None:
        source = Source(file_id=file_id)
    elif url is not None:
        source = Source(url=url)
    elif data is not None:
        source = source_of_url(data) if data.startswith("data:") else Source(data=data)
    else:
        raise members.fail(members.at("file_id"), "there, or 'file_url', or 'file_data'")
    return DocumentPart(source, members.take("filename", STRING), cache=_cache(members), extra=members.rest())


def _audio(members: Members) -> Part:
    audio = members.need_object("input_audio")
    form = audio.take("format", STRING)
    source = Source(data=audio.need("data", STRING), media_type=None if form is None else f"audio/{form}")
    return AudioPart(source, extra=members.rest() | audio.rest("input_audio."))


def _cache(members: Members) -> CacheMark | None:
    """The mark of an explicit breakpoint; how long it lasts has words of its own here."""
    mark = members.object(_CACHE)
    if mark is None:
        return None
    mark.raw("mode")
    members.keep(mark)
    return CacheMark()


_READERS: dict[str, Callable[[Members], Part]] = {
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}


# -- writing -------------------------------------------------------------------------------------------------


def write_content(parts: Sequence[Part], place: str, wire: Wire, *, spoken: bool = False) -> bytes:
    """A string where a string can say it, else a list; *spoken*: by the model."""
    match parts:
        case ():
            return b'""'
        case (TextPart(text=text, citations=(), cache=None) as part,) if wire.kept(part.raw) is None and not part.extra:
            return encode(text)
    items = enumerate(parts)
    return join_array(write_part(part, f"{place}[{index}]", wire, spoken=spoken) for index, part in items)


def write_part(part: Part, place: str, wire: Wire, *, spoken: bool = False) -> bytes:
    """*part* as JSON text, byte-equal when it is untouched. Unsupported for what has no form here."""
    if (kept := wire.kept(part.raw)) is not None:
        return kept
    members: dict[str, bytes]
    match part:
        case TextPart() if spoken:
            annotations = join_array(write_citation(each, wire, len(part.text)) for each in part.citations)
            members = {"type": b'"output_text"', "text": encode(part.text), "annotations": annotations}
        case TextPart():
            members = {"type": b'"input_text"', "text": encode(part.text)}
        case RefusalPart():
            members = {"type": b'"refusal"', "refusal": encode(part.text)}
        case ImagePart() if not spoken:
            members = {"type": b'"input_image"'} | _write_image(part, place)
        case DocumentPart() if not spoken:
            members = {"type": b'"input_file"'} | _write_file(part, place)
        case AudioPart() if not spoken:
            members = {"type": b'"input_audio"', "input_audio": _write_audio(part, place)}
        case OpaquePart():
            raise unsupported(place, f"a part of type {part.kind!r} of another protocol")
        case _:
            raise unsupported(place, f"a {type(part).__name__} here")
    if isinstance(part, TextPart | ImagePart | DocumentPart) and part.cache is not None:
        members[_CACHE] = join_object({"mode": b'"explicit"'} | nested(part.extra, _CACHE))
    return join_object(members | wire.unknown(part.extra, place, "input_audio", _CACHE))


def _write_image(part: ImagePart, place: str) -> dict[str, bytes]:
    detail = {"detail": encode(part.detail or "auto")}
    if part.source.file_id is not None:
        return {"file_id": encode(part.source.file_id)} | detail
    url = part.source.url if part.source.data is None else data_url(part.source, "image/png")
    if url is None:
        raise unsupported(place, "an image that is text")
    return {"image_url": encode(url)} | detail


def _write_file(part: DocumentPart, place: str) -> dict[str, bytes]:
    source = part.source
    title = {} if part.title is None else {"filename": encode(part.title)}
    if source.file_id is not None:
        return {"file_id": encode(source.file_id)} | title
    if source.url is not None:
        return {"file_url": encode(source.url)} | title
    if source.data is None:
        raise unsupported(place, "a document that is text")
    return {"file_data": encode(data_url(source, "application/pdf"))} | title


def _write_audio(part: AudioPart, place: str) -> bytes:
    if part.source.data is None:
        raise unsupported(place, "audio by reference")
    form = (part.source.media_type or "audio/wav").partition("/")[2]
    members = {"data": encode(part.source.data), "format": encode(form)}
    return join_object(members | nested(part.extra, "input_audio"))


# -- writing again -------------------------------------------------------------------------------------------


def rewrite_content(
    text: bytes, was: Sequence[Part], now: Sequence[Part], place: str, wire: Wire, *, spoken: bool = False
) -> bytes:
    """The content *text*, read as *was*, with *now* in it; parts that stayed keep their bytes."""
    if not text.startswith(b"["):
        return write_content(now, place, wire, spoken=spoken)
    if not now:
        return b"[]"
    items = []
    for index, part in enumerate(now):
        old = was[index] if len(was) == len(now) else None
        spliced = None if old is None else rewrite_part(part, old, wire)
        items.append(spliced or write_part(part, f"{place}[{index}]", wire, spoken=spoken))
    return with_items(text, items) if len(decode_array(text)) == len(items) else join_array(items)


def rewrite_part(part: Part, was: Part, wire: Wire) -> bytes | None:
    """*part* as the bytes of *was* with another text; None when more is different."""
    text = wire.kept(was.raw)
    if text is None or wire.kept(part.raw) is not None:
        return None
    match part, was:
        case TextPart(), TextPart() if attrs.evolve(part, text=was.text) == was:
            return rewrite_text(text, part.text)
        case RefusalPart(), RefusalPart() if attrs.evolve(part, text=was.text) == was:
            return rewrite_text(text, part.text)
        case _:
            return None


def rewrite_text(part: bytes, text: str) -> bytes:
    """The content part *part*, of any type, saying *text*; unchanged when it does."""
    members = decode_object(part)
    name = "refusal" if "refusal" in members else "text"
    if bytes(members.get(name, b"null")) == (now := encode(text)):
        return part
    changes: Changes = {name: now}
    logprobs = bytes(members.get("logprobs", b"null"))
    if logprobs.startswith(b"[") and _spelled(logprobs) not in text:
        changes["logprobs"] = b"[]"  # they would tell what was changed
    return with_members(part, changes)


class _Token(msgspec.Struct):
    token: str = ""


_decode_tokens = msgspec.json.Decoder(list[_Token]).decode


def _spelled(logprobs: bytes) -> str:
    return "".join([entry.token for entry in _decode_tokens(logprobs)])
