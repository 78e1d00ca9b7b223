"""What the reader of a stream leaves to the writer of the same protocol."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where an event stands in its chunk: the position of the candidate, and of the part in it."""

    candidate: int
    part: int = -1


NOWHERE = Place(-1)
"""The place of an event that no part stands for."""


class ChunkSource:
    """A chunk's text, its events' places, and what stands around it in its stream."""

    __slots__ = ("before", "data", "echoes", "places")

    def __init__(self, data: bytes, places: list[Place], before: bytes, *, echoes: bool) -> None:
        self.data = data
        self.places = places
        """One for each event of the frame."""
        self.before = before
        """In an array: what stands between this chunk and the one before."""
        self.echoes = echoes
        """It repeats what the answer says: sources with the passages they stand for."""


class MergedSource:
    """Several chunks that together hold one call, which came in pieces."""

    __slots__ = ("before",)

    def __init__(self, before: bytes) -> None:
        self.before = before
