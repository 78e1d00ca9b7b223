"""Endpoints of the proxy's own, as framework-free handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs

from llmproxy_core.headers import Headers
from llmproxy_core.processor import Processor


def _none(type_name: str) -> Sequence[Processor]:
    return ()


@attrs.frozen
class EndpointRequest:
    """
    A request for an endpoint. *query* is raw; *body* is bounded by the server's `max_body_bytes`.

    *processors* gives those of a type that the gateway runs now.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    processors: Callable[[str], Sequence[Processor]] = _none

    @property
    def last(self) -> str:
        """The last segment of *path* as it came: what a `*` stands for."""
        return self.path.rpartition("/")[2]


@attrs.frozen
class EndpointReply:
    """The answer of an endpoint. *headers* have lower-case names; the secure ones are added by the edge."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Endpoint:
    """
    One method at one exact path beside the routes; a GET one answers HEAD too.

    A *path* that ends in `/*` stands for all that have one more segment there, whatever it is (`EndpointRequest.last`),
    but for those that another endpoint has exactly.

    *local_only*: it changes something or shows single calls, so until roles exist it answers only a loopback peer
    that sends no forwarding header; others get 403 before *handle* is called.

    *merge* is for what each worker knows only its own part of: where there are several all are asked, and *merge* makes
    one answer of theirs. The answer of a worker that gave none in time is a 503 with an empty body.
    """

    method: str
    path: str
    handle: Callable[[EndpointRequest], Awaitable[EndpointReply]]
    local_only: bool = False
    merge: Callable[[Sequence[EndpointReply]], EndpointReply] | None = None
