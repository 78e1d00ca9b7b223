"""Annotations of a text: the sources that it names."""

from __future__ import annotations

from llmproxy_core.chat import Citation, remember
from llmproxy_core.wire import INTEGER, STRING, Members, Wire, encode, join_object


def read_citation(text: bytes, place: str, wire: Wire) -> Citation:
    """One annotation, whose members stand beside its type."""
    members = Members(text, place, wire.fail)
    start = members.take("start_index", INTEGER)
    position = members.take("index", INTEGER)
    citation = Citation(
        members.need("type", STRING),
        url=members.take("url", STRING),
        title=members.take("title", STRING) or members.take("filename", STRING),
        start=position if start is None else start,
        end=members.take("end_index", INTEGER),
    )
    return remember(citation, wire.api, text)


def write_citation(citation: Citation, wire: Wire, length: int = 0) -> bytes:
    """
    A citation as an annotation: of a URL where it has one, else of a file that it names.

    *length* is that of the text that it cites, in characters.
    """
    if (kept := wire.kept(citation.raw)) is not None:
        return kept
    title = encode(citation.title or citation.text or "")
    if citation.url is None:
        members = {
            "type": b'"file_citation"',
            "file_id": b'""',
            "filename": title,
            "index": encode(citation.start or 0),
        }
    else:
        members = {
            "type": b'"url_citation"',
            "url": encode(citation.url),
            "title": title,
            "start_index": encode(citation.start or 0),
            "end_index": encode(length if citation.end is None else citation.end),
        }
    return join_object(members)
