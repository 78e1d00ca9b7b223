"""Content parts: `{"type": "text", …}` and its kin, and the parts of the neutral conversation."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from llmproxy_core.carried import unseal
from llmproxy_core.chat import (
    AudioPart,
    CacheMark,
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    Raw,
    ReasoningPart,
    RefusalPart,
    Source,
    TextPart,
    VideoPart,
    remember,
)
from llmproxy_core.translation import unsupported
from llmproxy_core.wire.members import STRING, Members
from llmproxy_core.wire.plain import plain_text
from llmproxy_core.wire.splice import encode, join_array, join_object
from llmproxy_core.wire.wire import Wire, nested
from llmproxy_openai.reasoning_details import must_return, sealed

_NESTED = ("image_url", "input_audio", "file", "video_url", "cache_control")
"""Objects of which parts keep the unknown members."""

_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)

_MP3_FRAMES = tuple(f"//{letter}" for letter in "IJKLMNOPopqrstuv")
_SOUNDS = (
    (("SUQz", *_MP3_FRAMES), "audio/mp3"),
    (("UklG",), "audio/wav"),
    (("T2dn",), "audio/ogg"),
    (("Zkxh",), "audio/flac"),
)
"""How sound begins in base64, and what it is."""


# -- reading -------------------------------------------------------------------------------------------------


def read_part(text: bytes, place: str, wire: Wire) -> Part:
    """The part written as *text*; of an unknown type an OpaquePart, which only this wire form understands."""
    plain = plain_text(text)
    if plain is not None and plain.type == "text":
        return remember(TextPart(plain.text), wire.api, text)
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    read = _READERS.get(kind)
    if read is None:
        return OpaquePart(kind, Raw(wire.api, text))
    part = read(members)
    if isinstance(part, ReasoningPart):
        part = owned(part, wire)
    return remember(part, wire.api, text)


def _text(members: Members) -> Part:
    text = members.need("text", STRING)
    return TextPart(text, cache=_cache(members), extra=members.rest())


def _refusal(members: Members) -> Part:
    return RefusalPart(members.need("refusal", STRING), extra=members.rest())


def _image(members: Members) -> Part:
    raw = members.raw("image_url")
    if raw is not None and raw.startswith(b'"'):  # Mistral's short form: the URL itself
        url = Members(b'{"url":' + raw + b"}", members.at("image_url"), members.fail)
    else:
        url = Members(raw or b"null", members.at("image_url"), members.fail)
    source = source_of_url(url.need("url", STRING))
    detail = url.take("detail", STRING)
    return ImagePart(source, detail, _cache(members), extra=members.rest() | url.rest("image_url."))


def _audio(members: Members) -> Part:
    raw = members.peek("input_audio")
    if raw is not None and raw.startswith(b'"'):  # Mistral's short form: the data, or a URL of it
        sound = members.need("input_audio", STRING)
        by_url = sound.startswith(("http://", "https://", "data:"))
        source = source_of_url(sound) if by_url else Source(data=sound, media_type=_sound(sound))
        return AudioPart(source, extra=members.rest())
    audio = members.need_object("input_audio")
    form = audio.take("format", STRING)
    source = Source(data=audio.need("data", STRING), media_type=None if form is None else f"audio/{form}")
    return AudioPart(source, extra=members.rest() | audio.rest("input_audio."))


def _sound(data: str) -> str | None:
    """The kind of the sound *data*, by its first bytes; None for one that they do not tell."""
    return next((kind for begins, kind in _SOUNDS if data.startswith(begins)), None)


def _file(members: Members) -> Part:
    if members.peek("file") is None and members.peek("file_id") is not None:  # Mistral's
        return DocumentPart(Source(file_id=members.need("file_id", STRING)), extra=members.rest())
    file = members.need_object("file")
    file_id, data = file.take("file_id", STRING), file.take("file_data", STRING)
    if file_id is not None:
        source = Source(file_id=file_id)
    elif data is None:
        raise members.fail(file.at("file_id"), "there, or 'file_data'")
    elif data.startswith("data:"):
        source = source_of_url(data)
    else:
        source = Source(data=data)
    title = file.take("filename", STRING)
    return DocumentPart(source, title, cache=_cache(members), extra=members.rest() | file.rest("file."))


def _document(members: Members) -> Part:
    """Mistral's."""
    source = source_of_url(members.need("document_url", STRING))
    return DocumentPart(source, members.take("document_name", STRING), extra=members.rest())


def _video(members: Members) -> Part:
    """No part of OpenAI's own protocol; compatible servers share this form."""
    video = members.need_object("video_url")
    source = source_of_url(video.need("url", STRING))
    return VideoPart(source, extra=members.rest() | video.rest("video_url."))


def _thinking(members: Members) -> Part:
    """Mistral's list of text pieces."""
    pieces = [Members(text, members.at("thinking"), members.fail) for text in members.array("thinking")]
    text = "".join(piece.take("text", STRING) or "" for piece in pieces)
    signature = members.take("signature", STRING)
    return ReasoningPart(text, signature=signature, member="thinking", extra=members.rest())


def owned(part: ReasoningPart, wire: Wire) -> ReasoningPart:
    """*part* as its provider's: of the one whose protocol this is, unless its signature carries another's."""
    carried = unseal(part.signature or "")
    if carried is None:
        return attrs.evolve(part, provider=wire.api.partition(".")[0])
    return attrs.evolve(
        part,
        signature=carried.signature,
        redacted=carried.redacted,
        encrypted=carried.encrypted,
        id=carried.id,
        provider=carried.provider,
    )


def _cache(members: Members) -> CacheMark | None:
    """Anthropic's mark, which gateways take in OpenAI's form too."""
    mark = members.object("cache_control")
    if mark is None:
        return None
    mark.raw("type")
    ttl = mark.take("ttl", STRING)
    members.keep(mark)
    return CacheMark(ttl)


def source_of_url(url: str) -> Source:
    """The source behind a URL, which may hold the data itself (RFC 2397)."""
    if (found := _DATA_URL.fullmatch(url)) is None:
        return Source(url=url)
    return Source(data=found[2], media_type=found[1] or None)


_READERS: dict[str, Callable[[Members], Part]] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
    "document_url": _document,
    "video_url": _video,
    "thinking": _thinking,
}


# -- writing -------------------------------------------------------------------------------------------------


def write_part(part: Part, place: str, wire: Wire) -> bytes:
    """*part* as JSON text, byte-equal when it is untouched. Unsupported for what has no form here."""
    if (kept := wire.kept(part.raw)) is not None:
        return kept
    members: dict[str, bytes]
    match part:
        case TextPart():
            members = {"type": b'"text"', "text": encode(part.text)}
        case RefusalPart():
            members = {"type": b'"refusal"', "refusal": encode(part.text)}
        case ImagePart():
            members = {"type": b'"image_url"', "image_url": _write_image(part, place)}
        case AudioPart():
            members = {"type": b'"input_audio"', "input_audio": _write_audio(part, place)}
        case DocumentPart():
            members = {"type": b'"file"', "file": _write_file(part, place)}
        case ReasoningPart(member="thinking"):
            members = _write_thinking(part, wire)
        case VideoPart() if wire.own:
            members = {"type": b'"video_url"', "video_url": _write_video(part, place)}
        case OpaquePart():
            raise unsupported(place, f"a part of type {part.kind!r} of another protocol")
        case _:
            raise unsupported(place, f"a {type(part).__name__} here")
    if wire.own and isinstance(part, TextPart | ImagePart | DocumentPart) and part.cache is not None:
        members["cache_control"] = write_cache(part.cache, nested(part.extra, "cache_control"))
    return join_object(members | wire.unknown(part.extra, place, *_NESTED))


def write_cache(mark: CacheMark, unknown: dict[str, bytes]) -> bytes:
    """The mark in Anthropic's form; *unknown* are more members of it."""
    ttl = {} if mark.ttl is None else {"ttl": encode(mark.ttl)}
    return join_object({"type": b'"ephemeral"'} | ttl | unknown)


def _write_thinking(part: ReasoningPart, wire: Wire) -> dict[str, bytes]:
    """Mistral's part; what another provider needs back is its signature."""
    pieces = [join_object({"type": b'"text"', "text": encode(part.text)})] if part.text else []
    members = {"type": b'"thinking"', "thinking": join_array(pieces)}
    if must_return(part, wire.api.partition(".")[0]):
        members["signature"] = encode(sealed(part))
    elif part.signature is not None:
        members["signature"] = encode(part.signature)
    return members


def _write_video(part: VideoPart, place: str) -> bytes:
    url = part.source.url if part.source.data is None else data_url(part.source, "video/mp4")
    if url is None:
        raise unsupported(place, "a video by file id")
    return join_object({"url": encode(url)} | nested(part.extra, "video_url"))


def _write_image(part: ImagePart, place: str) -> bytes:
    url = part.source.url
    if part.source.data is not None:
        url = data_url(part.source, "image/png")
    if url is None:
        raise unsupported(place, "an image by file id")
    detail = {} if part.detail is None else {"detail": encode(part.detail)}
    return join_object({"url": encode(url)} | detail | nested(part.extra, "image_url"))


def _write_audio(part: AudioPart, place: str) -> bytes:
    if part.source.data is None:
        raise unsupported(place, "audio by reference")
    form = (part.source.media_type or "audio/wav").partition("/")[2]
    form = {"mpeg": "mp3", "x-wav": "wav"}.get(form, form)
    members = {"data": encode(part.source.data), "format": encode(form)}
    return join_object(members | nested(part.extra, "input_audio"))


def _write_file(part: DocumentPart, place: str) -> bytes:
    source = part.source
    if source.file_id is not None:
        members = {"file_id": encode(source.file_id)}
    elif source.data is not None:
        members = {"file_data": encode(data_url(source, "application/pdf"))}
    else:
        raise unsupported(place, "a document by URL or as text")
    title = {} if part.title is None else {"filename": encode(part.title)}
    return join_object(members | title | nested(part.extra, "file"))


def data_url(source: Source, default_type: str) -> str:
    """The URL that holds the data of *source* itself."""
    return f"data:{source.media_type or default_type};base64,{source.data}"
