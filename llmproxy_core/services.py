"""What the gateway lends to those it builds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, TypeVar

import attrs

from llmproxy_core.dialect import Dialect
from llmproxy_core.exchange import Clock
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm import LLMClient, Transport
from llmproxy_core.meter import Meter, NoMeter
from llmproxy_core.prices import NoPrices, Prices
from llmproxy_core.processor import Handler
from llmproxy_core.request import Request
from llmproxy_core.resources import Lease, Resources
from llmproxy_core.secret import Secret
from llmproxy_core.stores import Store
from llmproxy_core.tasks import Tasks
from llmproxy_core.token_estimate import ROUGH, Tokenizer

T = TypeVar("T")


@attrs.frozen
class Pool:
    """How many connections a transport keeps, and how it makes them; equal pools may be shared. 0 means no bound."""

    max_connections: int = 0
    """Open connections to all hosts together, busy or idle."""
    max_connections_per_host: int = 0
    idle_s: float = 90.0
    """How long an unused connection is kept, in seconds."""
    transport: Literal["wire", "aiohttp"] | None = None
    """What carries the calls; None: whatever can."""
    proxy: Secret | None = None
    """The URL of the proxy that connections are made through."""
    unix_socket: str | None = None
    """The path of the socket that is connected to, whatever host a URL names."""


@attrs.frozen
class ExtraCall:
    """
    The most that a model call of a processor's own may use, or that a processor adds to the route's own call.

    *llm* is a configured LLM's name, None for the route's target; *model* None for the model of the request.
    """

    llm: str | None
    model: str | None
    input_tokens: int
    output_tokens: int | None
    """None: the call sets no cap."""


def _no_extra_calls(request: Request) -> Sequence[ExtraCall]:
    return ()


@attrs.frozen
class RouteView:
    """What a processor may know of the route that an exchange took."""

    name: str
    llm: LLMClient
    """What the route targets."""
    llm_name: str
    fingerprint: str = ""
    """Another one whenever anything in the configuration of the route, its LLMs or its processors is another."""
    extra_calls: Callable[[Request], Sequence[ExtraCall]] = _no_extra_calls
    """The bounds of all calls of their own that the route's processors may make for a request."""


def _no_route(name: str) -> RouteView:
    raise KeyError(name)


def _no_store(name: str) -> Store:
    raise KeyError(name)


@attrs.frozen
class Services:
    """
    Everything a factory may use of the world; tests replace what they like.

    *llm* gives another configured LLM by name, *route* what is known of an exchange's `route`: both may be called only
    once a call is served (not while building). *transport* gives the transport for a pool, shared by all who ask for
    an equal one; *store* the store of a `[store.NAME]`. The gateway closes them.
    """

    llm: Callable[[str], LLMClient]
    transport: Callable[[Pool], Transport]
    tasks: Tasks
    route: Callable[[str], RouteView] = _no_route
    store: Callable[[str], Store] = _no_store
    prices: Prices = attrs.field(factory=NoPrices)
    meter: Meter = attrs.field(factory=NoMeter)
    lease: Lease = attrs.field(factory=lambda: Resources().lease())
    """What outlives the gateway; see `kept`."""
    table: str = ""
    """Whose services these are: `processor.NAME`, `llm.NAME` or `store.NAME`."""
    dialects: Mapping[str, Dialect] = FrozenMap()
    """All registered dialects by name."""
    clock: Clock = time.monotonic
    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    random: random.Random = attrs.field(factory=random.Random)
    tokenizer: Tokenizer = ROUGH
    """Counts the tokens that providers do not tell."""
    around: Callable[[str, Handler], Handler] | None = None
    """Given the name of each processor and the handler that it makes; what it gives is called instead. To watch it."""

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """
        State that a reload does not lose: what the same table had for an equal *key*, else what *make* gives.

        Put the frozen configuration into the key, or as much of it as matters: who is configured otherwise then starts
        anew. It is dropped once no gateway uses it.
        """
        return self.lease.get(("kept", self.table, key), make)
