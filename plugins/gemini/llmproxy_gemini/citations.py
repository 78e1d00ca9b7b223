"""Sources of an answer: `groundingMetadata` and `citationMetadata`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmproxy_core.chat import Citation
from llmproxy_core.wire import encode, join_array, join_object
from llmproxy_gemini.utf8_places import Utf8Places

_decode = msgspec.json.Decoder(dict[str, Any]).decode
KIND = "url_citation"
_DOCUMENT = "document"
_MOST_QUOTED = 8
"""So many times the length of its text an answer quotes of it; the passages of further citations have places alone."""


def read_citations(grounding: bytes, citation: bytes, text: Utf8Places) -> list[Citation]:
    """
    The citations in both; *text* is what the candidate says.

    Google counts bytes of UTF-8, the neutral conversation characters; a place that is not in *text* is left out.
    """
    return [*_grounded(_object(grounding), text), *_recited(_object(citation), text)]


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _objects(value: object) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _grounded(grounding: Mapping[str, Any], text: Utf8Places) -> Iterable[Citation]:
    chunks = _objects(grounding.get("groundingChunks"))
    for support in _objects(grounding.get("groundingSupports")):
        segment = support.get("segment")
        start, end = _place(segment if isinstance(segment, dict) else {}, text)
        indexes = support.get("groundingChunkIndices")
        for index in indexes if isinstance(indexes, list) else []:
            if isinstance(index, int) and 0 <= index < len(chunks):
                yield _source(chunks[index], start, end)


def _source(chunk: Mapping[str, Any], start: int | None, end: int | None) -> Citation:
    """A page of the web, or a document of the caller's own store, of which the passage is told."""
    if isinstance(web := chunk.get("web") or chunk.get("maps"), dict):
        return Citation(KIND, url=_word(web.get("uri")), title=_word(web.get("title")), start=start, end=end)
    found = chunk.get("retrievedContext")
    document = found if isinstance(found, dict) else {}
    return Citation(
        _DOCUMENT,
        url=_word(document.get("uri")),
        title=_word(document.get("title")),
        text=_word(document.get("text")),
        start=start,
        end=end,
    )


def _recited(citation: Mapping[str, Any], text: Utf8Places) -> Iterable[Citation]:
    sources = citation.get("citationSources") or citation.get("citations")
    for source in _objects(sources):
        start, end = _place(source, text)
        yield Citation(KIND, url=_word(source.get("uri")), title=_word(source.get("title")), start=start, end=end)


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _place(segment: Mapping[str, Any], text: Utf8Places) -> tuple[int | None, int | None]:
    """From where to where in *text*, in characters."""
    start, end = segment.get("startIndex", 0), segment.get("endIndex")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end <= text.size:
        return None, None
    return text.characters(start), text.characters(end)


def write_citations(citations: Sequence[Citation], text: str) -> bytes:
    """*citations* of *text* as `groundingMetadata`."""
    places = Utf8Places()
    places.add(text)
    chunks: dict[bytes, int] = {}
    supports: list[bytes] = []
    left = _MOST_QUOTED * len(text)
    for citation in citations:
        index = chunks.setdefault(_chunk(citation), len(chunks))
        segment: dict[str, Any] = {}
        if citation.start is not None and citation.end is not None:
            segment = {"startIndex": places.bytes(citation.start), "endIndex": places.bytes(citation.end)}
            left -= max(0, citation.end - citation.start)
            if left >= 0:
                segment["text"] = text[citation.start : citation.end]
        supports.append(join_object({"segment": encode(segment), "groundingChunkIndices": encode([index])}))
    return join_object({"groundingChunks": join_array(chunks), "groundingSupports": join_array(supports)})


def _chunk(citation: Citation) -> bytes:
    members = {"uri": citation.url, "title": citation.title}
    if citation.url is None and citation.text is not None:
        members["text"] = citation.text
    named = {name: encode(value) for name, value in members.items() if value is not None}
    return join_object({"retrievedContext" if "text" in members else "web": join_object(named)})
