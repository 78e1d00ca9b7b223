"""A fault as it befalls one call."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from llmproxy_core import Exchange, UpstreamError

Failure = Callable[[Exchange], UpstreamError]
"""Makes the error, a new one for each call."""


@attrs.frozen
class Strike:
    """One fault of one call, with the figures that were drawn for it: a wait, a failure, or one after the other."""

    fault: str
    """Its name, as it is logged and counted."""
    after_chars: int | None = None
    """How many characters of the answer may pass before it; None: it comes before the call is made."""
    wait_s: float = 0.0
    failure: Failure | None = None
    """None: the call goes on after the wait."""
    lasting: bool = False
    """Whether it comes again before each piece of text that follows."""
