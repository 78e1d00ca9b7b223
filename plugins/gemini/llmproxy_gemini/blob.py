"""Media: `inlineData` and `fileData`."""

from __future__ import annotations

import mimetypes
from urllib.parse import urlsplit

from llmproxy_core.chat import AudioPart, DocumentPart, ImagePart, JSONText, Part, Source, VideoPart
from llmproxy_core.wire import STRING, Wire, encode, join_object, nested
from llmproxy_gemini.spelling import Spelled

_FILES = "https://generativelanguage.googleapis.com/"
_OF_KIND = {"image": "image/jpeg", "audio": "audio/wav", "video": "video/mp4"}
_DOCUMENT = "application/pdf"
_USUAL = str.maketrans("-_", "+/")

Media = ImagePart | AudioPart | VideoPart | DocumentPart


def read_inline(blob: Spelled) -> Source:
    """Data in the message itself, base64 in either alphabet: others take the usual one alone, filled up."""
    data = blob.need("data", STRING).translate(_USUAL)
    return Source(data=data + "=" * (-len(data) % 4), media_type=blob.take("mimeType", STRING))


def read_file(file: Spelled) -> Source:
    """What is stored elsewhere: a file of Google's by its name, anything else by its URL."""
    uri, kind = file.need("fileUri", STRING), file.take("mimeType", STRING)
    if uri.startswith((_FILES, "files/")):
        return Source(file_id=uri, media_type=kind)
    return Source(url=uri, media_type=kind)


def media(source: Source, signature: str | None, extra: dict[str, JSONText]) -> Part:
    """The part for *source*, by its media type; a URL without one is taken for a video only at YouTube."""
    match (source.media_type or "").partition("/")[0]:
        case "image":
            return ImagePart(source, signature=signature, extra=extra)
        case "audio":
            return AudioPart(source, extra=extra | _signed(signature))
        case "video":
            return VideoPart(source, extra=extra | _signed(signature))
        case "" if source.url is not None and _is_video_page(source.url):
            return VideoPart(source, extra=extra | _signed(signature))
        case _:
            return DocumentPart(source, extra=extra | _signed(signature))


def _signed(signature: str | None) -> dict[str, JSONText]:
    return {} if signature is None else {"thoughtSignature": encode(signature)}


def _is_video_page(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"youtu.be", "youtube.com"} or host.endswith(".youtube.com")


def write_media(part: Media, place: str, wire: Wire) -> dict[str, bytes] | None:
    """The member that holds the media of *part*; None when it cannot be said, and is left out."""
    source = part.source
    if source.text is not None:
        return {"text": encode(source.text)}
    if source.data is not None:
        blob = {"mimeType": encode(source.media_type or _default(part)), "data": encode(source.data)}
        return {"inlineData": join_object(blob | nested(part.extra, "inlineData"))}
    uri = source.url if source.file_id is None else source.file_id
    if uri is None or (source.file_id is not None and not uri.startswith((_FILES, "files/"))):
        wire.refuse(place, "a file of another provider")
        return None
    kind = {"mimeType": encode(source.media_type or _guessed(uri) or _default(part))}
    if source.media_type is None and (wire.own or _is_video_page(uri)):
        kind = {}
    return {"fileData": join_object(kind | {"fileUri": encode(uri)} | nested(part.extra, "fileData"))}


def _guessed(uri: str) -> str | None:
    return mimetypes.guess_type(urlsplit(uri).path)[0]


def _default(part: Media) -> str:
    match part:
        case ImagePart():
            return _OF_KIND["image"]
        case AudioPart():
            return _OF_KIND["audio"]
        case VideoPart():
            return _OF_KIND["video"]
        case _:
            return _DOCUMENT
