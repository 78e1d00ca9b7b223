"""What the gateway lends to those it builds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import attrs

from llmproxy_core.dialect import Dialect
from llmproxy_core.exchange import Clock
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm import LLMClient, Transport
from llmproxy_core.tasks import Tasks


@attrs.frozen
class Pool:
    """How many connections a transport keeps; equal pools may be shared. 0 means no bound."""

    max_connections: int = 0
    """Open connections to all hosts together, busy or idle."""
    max_connections_per_host: int = 0
    idle_s: float = 90.0
    """How long an unused connection is kept, in seconds."""


@attrs.frozen
class Services:
    """
    Everything a factory may use of the world; tests replace what they like.

    *llm* gives another configured LLM by name, and may be called only once a call is served (not while building).
    *transport* gives the transport for a pool, shared by all who ask for an equal one; the gateway closes it.
    """

    llm: Callable[[str], LLMClient]
    transport: Callable[[Pool], Transport]
    tasks: Tasks
    dialects: Mapping[str, Dialect] = FrozenMap()
    """All registered dialects by name."""
    clock: Clock = time.monotonic
    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    random: random.Random = attrs.field(factory=random.Random)
