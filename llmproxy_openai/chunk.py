"""A chunk of a stream, decoded, and where in it each event was found."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llmproxy_openai.call_index import CallIndex

RAW = msgspec.Raw()


class FunctionPiece(msgspec.Struct):
    """A function or custom tool of a call; *arguments* is text, or (older Mistral) an object."""

    name: str | None = None
    arguments: msgspec.Raw = RAW
    input: str | None = None


class CallPiece(msgspec.Struct):
    """A piece of a tool call. Some servers leave out the index, later ids, or say a later name as ""."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionPiece | None = None
    custom: FunctionPiece | None = None
    extra_content: msgspec.Raw = RAW


class AudioPiece(msgspec.Struct):
    """A piece of speech."""

    id: str | None = None
    data: str | None = None
    transcript: str | None = None


class Delta(msgspec.Struct):
    """What is new in a choice. *content* is text, or (Mistral) a list of parts."""

    content: str | list[msgspec.Raw] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None
    function_call: FunctionPiece | None = None
    audio: AudioPiece | None = None
    annotations: list[msgspec.Raw] | None = None


class ChunkChoice(msgspec.Struct):
    """A choice's part of a chunk; *text* is that of the legacy form, which has no delta."""

    index: int | None = None
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = RAW
    usage: msgspec.Raw = RAW


class Chunk(msgspec.Struct):
    """What is read of a chunk. Its unknown members stay in the event's bytes."""

    id: str | None = None
    object: str | None = None
    created: int | float | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    choices: list[ChunkChoice] | None = None
    usage: msgspec.Raw = RAW
    x_groq: msgspec.Raw = RAW
    error: msgspec.Raw = RAW


class Place(NamedTuple):
    """
    Where an event stands in its chunk.

    *choice* and *item* are positions in the lists (of choices; of tool calls, parts or annotations), *member* is
    the member of the delta, or of the chunk for what is no choice's.
    """

    choice: int
    member: str
    item: int = 0


NOWHERE = Place(-1, "")
"""The place of an event that no bytes stand for by themselves: Start."""


class ChunkSource:
    """What the reader leaves to the writer of the same protocol: the chunk's text and its events' places."""

    __slots__ = ("calls", "data", "only_usage", "places")

    def __init__(self, data: bytes, places: list[Place], calls: CallIndex, *, only_usage: bool) -> None:
        self.data = data
        self.places = places
        """One for each event of the frame."""
        self.calls = calls
        self.only_usage = only_usage
        """The chunk has no choice and tells the usage: withheld from a client that did not ask."""
