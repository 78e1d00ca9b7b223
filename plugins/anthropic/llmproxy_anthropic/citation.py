"""Citations on text blocks."""

from __future__ import annotations

from llmproxy_core.chat import Citation, remember
from llmproxy_core.wire import STRING, Members, Wire, array, encode, join_object


def read_citations(members: Members, wire: Wire) -> tuple[Citation, ...]:
    """The `citations` of a text block, which may be null."""
    raw = members.raw("citations")
    if raw is None:
        return ()
    place = members.at("citations")
    return tuple(read_citation(text, f"{place}[{n}]", wire) for n, text in enumerate(array(raw, place, members.fail)))


def read_citation(text: bytes, place: str, wire: Wire) -> Citation:
    """
    One citation, by its kind: a place in a document, a page of the web, a search result.

    Offsets here count characters of the document, not of the answer, so they stay in the bytes.
    """
    members = Members(text, place, wire.fail)
    citation = Citation(
        members.need("type", STRING),
        url=members.take("url", STRING) or members.take("source", STRING),
        title=members.take("title", STRING) or members.take("document_title", STRING),
        text=members.take("cited_text", STRING),
    )
    return remember(citation, wire.api, text)


def write_citation(citation: Citation, wire: Wire) -> bytes:
    """A citation for a client; one of another protocol is a page of the web."""
    if (kept := wire.kept(citation.raw)) is not None:
        return kept
    return join_object(
        {
            "type": b'"web_search_result_location"',
            "cited_text": encode(citation.text or ""),
            "url": encode(citation.url or ""),
            "title": encode(citation.title),
            "encrypted_index": b'""',
        }
    )
