"""Texts to vectors: what the embedding calls of all providers can say."""

from __future__ import annotations

from typing import Literal

import attrs

from llmproxy_core.usage import Usage

EmbeddingInput = str | tuple[int, ...]
"""A text, or its tokens."""


@attrs.frozen
class EmbeddingsRequest:
    """
    Texts to be turned into vectors, one for each. None means "not said".

    *single* and *encoding* are about the form of the answer alone: one vector instead of a list (Gemini's
    `embedContent`), numbers or base64 of little-endian 32-bit floats.
    """

    model: str | None
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    encoding: Literal["float", "base64"] = "float"
    user: str | None = None
    task: str | None = None
    """What the vectors are for, in Gemini's words (`RETRIEVAL_QUERY`)."""
    title: str | None = None
    dtype: str | None = None
    """The type of the numbers, in Mistral's words (`float`, `int8`, `binary`)."""
    single: bool = False
    extra: tuple[str, ...] = ()
    """Names of members that only the client's protocol knows."""


@attrs.frozen
class EmbeddingsReply:
    """The vectors, in the order of the inputs."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None = None
