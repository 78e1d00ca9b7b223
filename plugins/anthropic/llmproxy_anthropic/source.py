"""Where images and documents come from."""

from __future__ import annotations

import base64
import binascii

from llmproxy_core import unsupported
from llmproxy_core.chat import DocumentPart, ImagePart, Source
from llmproxy_core.wire import STRING, Members, Wire, array, decode, encode, join_object

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_BEGINNINGS = (("iVBOR", "image/png"), ("/9j/", "image/jpeg"), ("R0lG", "image/gif"), ("UklG", "image/webp"))
"""How the base64 of each begins."""
_PDF = "application/pdf"


def read_source(members: Members, wire: Wire) -> Source | None:
    """What `source` says; None for a form that only this protocol knows."""
    kind = members.need("type", STRING)
    match kind:
        case "base64":
            return Source(data=members.need("data", STRING), media_type=members.take("media_type", STRING))
        case "url":
            return Source(url=members.need("url", STRING), media_type=members.take("media_type", STRING))
        case "file":
            return Source(file_id=members.need("file_id", STRING), media_type=members.take("media_type", STRING))
        case "text":
            return Source(text=members.need("data", STRING), media_type=members.take("media_type", STRING))
        case "content":
            return _read_content(members, wire)
        case _:
            return None


def _read_content(members: Members, wire: Wire) -> Source | None:
    """A document made of texts; one with images in it is understood by this protocol alone."""
    raw = members.raw("content") or b'""'
    if raw.startswith(b'"'):
        return Source(text=decode(STRING, raw, members.at("content"), members.fail))
    text = joined_texts(raw, members, wire)
    return None if text is None else Source(text=text)


def joined_texts(raw: bytes, members: Members, wire: Wire) -> str | None:
    """
    The texts of *raw*, the `content` of *members*, a line each; None when there is a block in it that is no text.

    What nobody knows of the blocks is left among *members*.
    """
    texts, place = [], members.at("content")
    for index, item in enumerate(array(raw, place, wire.fail)):
        block = Members(item, f"{place}[{index}]", wire.fail)
        if block.need("type", STRING) != "text":
            return None
        texts.append(block.need("text", STRING))
        block.raw("citations")
        if (mark := block.object("cache_control")) is not None:
            block.keep(mark)
        members.keep(block)
    return "\n".join(texts)


# -- writing -------------------------------------------------------------------------------------------------


def write_image_source(part: ImagePart, place: str, wire: Wire) -> bytes:
    """Unsupported for a type of image that is not taken, and for the id of a file that another provider has."""
    source = part.source
    if source.url is not None:
        return _url(source.url)
    if source.data is not None:
        kind = _image_type(source.media_type, source.data)
        if kind not in _IMAGE_TYPES:
            raise unsupported(place, f"an image of type {kind!r}")
        return _base64(kind, source.data)
    if source.file_id is not None and wire.own:
        return _file(source.file_id)
    raise unsupported(place, "an image by the id of another provider's file")


def _image_type(said: str | None, data: str) -> str:
    if said == "image/jpg":
        return "image/jpeg"
    found = next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), "image/png")
    return said or found


def write_document_source(part: DocumentPart, place: str, wire: Wire) -> bytes:
    """PDF and plain text; Unsupported for anything else."""
    source = part.source
    if source.text is not None:
        return _text(source.text)
    if source.url is not None:
        return _url(source.url)
    if source.data is not None:
        kind = source.media_type or _PDF
        if kind == _PDF:
            return _base64(_PDF, source.data)
        return _text(_decoded(source.data, kind, place))
    if source.file_id is not None and wire.own:
        return _file(source.file_id)
    raise unsupported(place, "a document by the id of another provider's file")


def _decoded(data: str, kind: str, place: str) -> str:
    if kind.startswith("text/") or kind == "application/json":
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, ValueError):
            pass
    raise unsupported(place, f"a document of type {kind!r}")


def _url(url: str) -> bytes:
    return join_object({"type": b'"url"', "url": encode(url)})


def _file(file_id: str) -> bytes:
    return join_object({"type": b'"file"', "file_id": encode(file_id)})


def _base64(kind: str, data: str) -> bytes:
    return join_object({"type": b'"base64"', "media_type": encode(kind), "data": encode(data)})


def _text(text: str) -> bytes:
    return join_object({"type": b'"text"', "media_type": b'"text/plain"', "data": encode(text)})
