"""What a conversation was read from, so that it can be written byte-equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from llmproxy_core.chat.parts import JSONText
from llmproxy_core.node import node

if TYPE_CHECKING:
    from llmproxy_core.chat.reply import ChatReply
    from llmproxy_core.chat.request import ChatRequest


@node
class ChatOrigin:
    """What a request or reply was read from: all top-level members in their order, and the value before any change."""

    api: str
    members: Mapping[str, JSONText]
    value: ChatRequest | ChatReply
    text: JSONText = attrs.field(default=b"", repr=False)
    """The whole JSON text, for a writer that splices what changed into it."""
