"""What a processor may ask of a response: the least it needs, in the order asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import attrs

from llmproxy_core.chat import ChatEvent
from llmproxy_core.layer import OUTSIDE, Layer
from llmproxy_core.outcome import KeptBody
from llmproxy_core.text import Channel, TextFilter, Watcher

MakeWatcher = Callable[[Channel], Watcher | None]
"""A new watcher for one channel of one response; None to let the channel pass unseen."""
MakeFilter = Callable[[Channel], TextFilter | None]
"""A new filter for one channel of one response; None to let the channel pass unchanged."""
Transform = Callable[[AsyncIterator[ChatEvent]], AsyncIterator[ChatEvent]]


# The owner is the processor that asked: who is named when what it gave fails.


@attrs.frozen
class Watch:
    make: MakeWatcher
    owner: Layer = OUTSIDE


@attrs.frozen
class Rewrite:
    make: MakeFilter
    owner: Layer = OUTSIDE


@attrs.frozen
class Replace:
    transform: Transform
    owner: Layer = OUTSIDE


@attrs.define(eq=False)
class Keep:
    """A wish to keep the bytes, and once the response has ended, the bytes."""

    max_bytes: int
    partial: bool = False
    """The beginning will do: of an answer that is longer, or that was broken off."""
    body: KeptBody | None = None
    so_far: Callable[[], KeptBody] | None = None
    """Gives what was kept of an answer that was broken off; set by who keeps it, where that is wanted."""


Subscription = Watch | Rewrite | Replace | Keep
