"""A `GenerateContentResponse`, whole or a piece of a stream, decoded as far as all readers need it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from llmproxy_core import UpstreamError, UpstreamGarbage
from llmproxy_core.wire import Envelope, read_body, reported_error
from llmproxy_gemini.apis import NAME

RAW = msgspec.Raw()
NULLS = (b"", b"null")


class Content(msgspec.Struct):
    """What a candidate says; MAX_TOKENS while thinking leaves no parts at all."""

    parts: list[msgspec.Raw] | None = None
    role: str | None = None


class Candidate(msgspec.Struct, rename="camel"):
    """An answer, or what is new in it."""

    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = None
    grounding_metadata: msgspec.Raw = RAW
    citation_metadata: msgspec.Raw = RAW
    logprobs_result: msgspec.Raw = RAW


class Feedback(msgspec.Struct, rename="camel"):
    """What is said of the question."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class Chunk(msgspec.Struct, rename="camel"):
    """The top level."""

    candidates: list[msgspec.Raw] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: msgspec.Raw = RAW
    model_version: str | None = None
    response_id: str | None = None
    create_time: str | None = None
    error: msgspec.Raw = RAW

    @property
    def blocked(self) -> str | None:
        """Why the question is not answered; None where it is."""
        return None if self.prompt_feedback is None else self.prompt_feedback.block_reason

    @property
    def created(self) -> int | None:
        """Seconds since the epoch."""
        if self.create_time is None:
            return None
        try:
            return int(datetime.fromisoformat(self.create_time).timestamp())
        except (ValueError, OverflowError):
            return None


_decode = msgspec.json.Decoder(Chunk).decode
_decode_candidate = msgspec.json.Decoder(Candidate).decode


def decode_chunk(data: bytes) -> Chunk:
    """UpstreamGarbage for what is none; an error in place of an answer is left to `error_in`."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage("The provider's answer cannot be understood") from error


def decode_candidate(text: bytes) -> Candidate:
    try:
        return _decode_candidate(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage("A candidate of the provider's answer cannot be understood") from error


def error_in(chunk: Chunk, data: bytes) -> UpstreamError | None:
    """The error that *data* holds in place of an answer."""
    if bytes(chunk.error) in NULLS:
        return None
    return reported_error(
        NAME, read_body(data) or Envelope("The provider reported an error without saying which."), data
    )
