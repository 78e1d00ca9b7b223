"""One answer as streams that are cut in every way a network and a model may cut it."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.testing.said import Said, in_words
from llmproxy_core.testing.stream_cuts import cuts


@attrs.frozen
class Chunked:
    """A stream as it arrives, and how it was cut, for messages."""

    how: str
    chunks: tuple[bytes, ...]
    same_bytes: bool = False
    """Whether its bytes, joined, are those of `plain`."""


def plain(said: Said, dialect: Dialect, api: Api) -> Chunked:
    """An event for each word, each in a chunk of its own: nothing is odd."""
    return Chunked("one chunk for each event", tuple(said.stream(dialect, api, in_words)), same_bytes=True)


def byte_cuts(said: Said, dialect: Dialect, api: Api) -> Iterator[Chunked]:
    """The bytes of `plain`, cut by `cuts`."""
    for how, pieces in cuts(b"".join(plain(said, dialect, api).chunks)):
        yield Chunked(how, pieces, same_bytes=True)


def every_text_cut(said: Said, dialect: Dialect, api: Api) -> Iterator[Chunked]:
    """Its texts in one event, a character each, and in two events cut at every place."""
    yield Chunked("each text in one event", tuple(said.stream(dialect, api, lambda text: [text])))
    yield Chunked("an event for each character", tuple(said.stream(dialect, api, list)))
    longest = max(map(len, (said.text, said.reasoning, *(call.arguments for call in said.calls))))
    for at in range(1, longest):

        def in_two(text: str, at: int = at) -> list[str]:
            return [piece for piece in (text[:at], text[at:]) if piece]

        yield Chunked(f"texts cut before character {at}", tuple(said.stream(dialect, api, in_two)))
