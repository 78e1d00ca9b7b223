"""An answer in pieces: what the events of a stream mean."""

from __future__ import annotations

from typing import Literal

import attrs

from llmproxy_core.chat.parts import Citation, JSONText
from llmproxy_core.chat.reply import Finish
from llmproxy_core.usage import Usage

# Plain slots: they are made per event. *choice* is the choice's index. A reader gives a Start before anything else
# of its stream and an End for its terminal event; nothing follows an End or a Failed.


@attrs.define
class Start:
    """The answer begins; what every later event shares."""

    id: str
    model: str
    created: int | None = None
    service_tier: str | None = None
    fingerprint: str | None = None


@attrs.define
class TextDelta:
    """A piece of text; *signature* as in TextPart, whole in one event, whose text may be empty."""

    choice: int
    text: str
    logprobs: JSONText | None = None
    signature: str | None = None


@attrs.define
class ReasoningDelta:
    """A piece of thinking; *signature*, *redacted*, *encrypted*, *id* as in ReasoningPart, each whole in one event."""

    choice: int
    text: str
    signature: str | None = None
    redacted: str | None = None
    encrypted: str | None = None
    provider: str | None = None
    member: str | None = None
    summary: bool = False
    id: str | None = None


@attrs.define
class RefusalDelta:
    choice: int
    text: str


@attrs.define
class ToolCallStart:
    """A tool call begins. *index* counts the calls of its choice from 0 without gaps."""

    choice: int
    index: int
    id: str
    name: str
    kind: Literal["function", "custom", "legacy"] = "function"
    signature: str | None = None
    item_id: str | None = None
    """As in ToolCall."""


@attrs.define
class ToolCallDelta:
    """A piece of the arguments' text."""

    choice: int
    index: int
    arguments: str


@attrs.define
class CitationAdded:
    choice: int
    citation: Citation


@attrs.define
class AudioDelta:
    """A piece of spoken output: base64 data, transcript, or both."""

    choice: int
    data: str | None = None
    transcript: str | None = None
    id: str | None = None


@attrs.define
class Finished:
    choice: int
    finish: Finish


@attrs.define
class UsageReported:
    """Token counts so far; the last one counts."""

    usage: Usage


@attrs.define
class Ping:
    """The provider is alive; nothing else."""


@attrs.define
class Failed:
    """
    The provider reports an error in mid-stream; the fields are those of UpstreamError.

    *body* is what it said, for clients that speak the protocol *dialect* too.
    """

    message: str
    code: str | None = None
    error_type: str | None = None
    status: int | None = None
    param: str | None = None
    retryable: bool = True
    retry_after_s: float | None = None
    dialect: str | None = None
    body: bytes | None = attrs.field(default=None, eq=False, repr=False)


@attrs.define
class End:
    """The terminal event: the answer is complete."""


@attrs.define
class OpaqueEvent:
    """An event only its own protocol knows; with *choice* and *api* it is an OpaquePart of that choice's content."""

    kind: str
    raw: bytes
    choice: int | None = None
    api: str | None = None


ChatEvent = (
    Start
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallStart
    | ToolCallDelta
    | CitationAdded
    | AudioDelta
    | Finished
    | UsageReported
    | Ping
    | Failed
    | End
    | OpaqueEvent
)
