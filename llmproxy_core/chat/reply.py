"""A whole answer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import attrs

from llmproxy_core.chat.origin import ChatOrigin
from llmproxy_core.chat.parts import JSONText, Part, Raw, TextPart
from llmproxy_core.node import node
from llmproxy_core.usage import Usage


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    ERROR = "error"


@node
class Finish:
    """Why a choice ended; *word* is the provider's own spelling, *stop_sequence* the one that was met."""

    reason: FinishReason
    word: str | None = None
    stop_sequence: str | None = None
    detail: str | None = None
    """What the provider adds to the word: the category of a refusal, a message."""


@node
class Choice:
    """One answer. *finish* is None when the provider gave none; *logprobs* is OpenAI's `{"content": […]}`."""

    index: int
    content: tuple[Part, ...]
    finish: Finish | None
    logprobs: JSONText | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@node
class ChatReply:
    """A whole answer. *created* is seconds since the epoch."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    created: int | None = None
    service_tier: str | None = None
    fingerprint: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    origin: ChatOrigin | None = attrs.field(default=None, eq=False, repr=False, kw_only=True)

    @property
    def text(self) -> str:
        """The first choice's text; "" when there is no choice."""
        return self.choices[0].text if self.choices else ""
