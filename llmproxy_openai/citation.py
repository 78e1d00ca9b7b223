"""Citations: the annotations of an assistant's message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmproxy_core.chat import Citation, Part, TextPart, remember
from llmproxy_core.wire import INTEGER, STRING, Members, Wire, encode, join_object


def cited(content: tuple[Part, ...], members: Members, wire: Wire) -> Iterable[Part]:
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


def write_citation(citation: Citation, wire: Wire, offset: int = 0, length: int = 0) -> bytes:
    """
    A citation as an annotation; one of another protocol becomes a `url_citation`.

    *offset* is where the text that it cites, of *length* characters, begins in the message.
    """
    if (kept := wire.kept(citation.raw)) is not None:
        return kept
    cited = {
        "url": encode(citation.url or ""),
        "title": encode(citation.title or citation.text or ""),
        "start_index": encode(offset + (citation.start or 0)),
        "end_index": encode(offset + (length if citation.end is None else citation.end)),
    }
    return join_object({"type": b'"url_citation"', "url_citation": join_object(cited)})


def written_citations(content: Sequence[Part], wire: Wire) -> Iterable[bytes]:
    """The citations of all texts, which are one here. Requests of other protocols have no use for them."""
    offset = 0
    for part in content:
        if isinstance(part, TextPart) and wire.own:
            yield from (write_citation(each, wire, offset, len(part.text)) for each in part.citations)
            offset += len(part.text)
