"""LLMs: whoever can answer an exchange, and the contract of those that answer over the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from math import inf
from typing import Protocol

from llmproxy_core.body import Body
from llmproxy_core.exchange import Exchange
from llmproxy_core.headers import Headers
from llmproxy_core.model_map import ModelMap
from llmproxy_core.node import node, record
from llmproxy_core.prices import ModelPrice
from llmproxy_core.response import Response


class LLMClient(Protocol):
    """A configured `[llm.NAME]`. A group of LLMs is one too."""

    @property
    def models(self) -> ModelMap:
        """Which models it serves."""
        ...

    async def send(self, exchange: Exchange) -> Response:
        """Return once the upstream has answered 2xx, or raise a ProxyError."""
        ...

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        """
        What a call that asks for *model* may be billed at: the price of every model that may be sent for it.

        None among them is a model whose price nobody knows. Empty when nothing would be sent.
        """
        ...

    async def aclose(self) -> None:
        """Free what it holds; called once, after its last exchange."""
        ...


@node
class Timeouts:
    """
    The clocks of an upstream call, in seconds, each enforced on its own; None or 0 switches one off.

    All but those of tokens, of which the LLM sees to itself, are the transport's.
    """

    connect_s: float | None = 5.0
    """Until a connection stands, DNS and TLS included; also the wait for a free one in the pool."""
    first_byte_s: float | None = 300.0
    """From the request sent to the head of the answer, and from there to its first byte."""
    idle_s: float | None = 60.0
    """Between two reads of the answer."""
    total_s: float | None = 900.0
    """The whole call, from its start to the last byte."""
    first_token_s: float | None = 0.0
    """From the request sent to the first event of a stream that answers something."""
    between_tokens_s: float | None = 0.0
    """Between two events of a stream that answer something."""


class FixedHeaders:
    """
    Fields that are the same in each call of an LLM, made ready for the wire at load; their names in lower case.

    ValueError for one that would end its line.
    """

    __slots__ = ("begun", "lines", "names", "pairs", "sent")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = tuple(pairs)
        self.names = frozenset(name for name, _ in self.pairs)
        self.lines = "".join(f"{name}: {value}\r\n" for name, value in self.pairs)
        """As they stand in a head."""
        self.sent: str | None = None
        """With what the transport adds to them in each call: its own memory, filled by its first."""
        self.begun: tuple[str, str, str] | None = None
        """How the last head began that had no other fields, and for what: the transport's memory too."""
        breaks = self.lines.count("\r"), self.lines.count("\n"), self.lines.count("\0")
        if breaks != (len(self.pairs), len(self.pairs), 0):
            raise ValueError("a header field has a line break or a NUL")

    def __repr__(self) -> str:
        return f"FixedHeaders({sorted(self.names)})"  # names alone: values may be credentials


_NO_HEADERS = FixedHeaders()


def always() -> bool:
    return True


def never() -> bool:
    return False


@record(eq=False, repr=False)
class UpstreamRequest:
    """
    One HTTP call to an upstream. Made per call.

    *headers*, *fixed* and *span*, in this order, are complete but for Host and Content-Length.
    """

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] | None = None
    fixed: FixedHeaders = _NO_HEADERS
    span: str = ""
    """Our place in a trace, as `traceparent` and `tracestate` are written on the wire, each with its line's end."""
    sent_s: float | None = None
    """
    Set by the transport once it is on its way, in seconds of `time.monotonic`.

    From then on the upstream may work on it.
    """
    may_repeat: Callable[[], bool] = always
    """Whether it may be sent once more: asked where a kept connection turns out to be closed, with not a byte said."""
    left_s: float = inf
    """Seconds that the whole exchange has left: where the total clock gives it more, its deadline ends the call."""
    repeated: bool = False
    """Set by the transport when it was."""


@record(repr=False)
class UpstreamResponse:
    """An upstream's answer, whatever its status: the head is here, the body is to be read or closed. Made per call."""

    status: int
    headers: Headers
    body: Body


class Transport(Protocol):
    """
    The only seam to the network.

    No redirects, no cookies, no decompression, no proxy from the environment unless configured so. Every failure is
    an UpstreamError: upstream_connect, upstream_timeout_*, upstream_cut, upstream_garbage; Overloaded (pool_full)
    where our own connections were all busy for too long. A cancelled `open` leaves nothing behind.
    """

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse: ...

    async def aclose(self) -> None: ...
