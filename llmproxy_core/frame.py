"""One event of a stream, as it was read."""

from __future__ import annotations

import attrs

from llmproxy_core.chat import ChatEvent


@attrs.define
class Frame:
    """
    One event of a stream as read: its exact bytes and its meaning.

    Joining the `raw` of all frames gives the stream back. *source* is the dialect's own memory of the event, for
    its writer alone. *ends_text*: with it a part of the text ends, which citations count in.
    """

    raw: bytes
    events: list[ChatEvent]
    source: object = None
    ends_text: bool = False
