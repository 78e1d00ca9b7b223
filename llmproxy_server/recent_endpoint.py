"""`GET /api/requests` and `GET /api/requests/{id}`: what happened to the last calls, of all workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import msgspec

from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_server.log_line import Shortened
from llmproxy_server.log_redact import Redaction
from llmproxy_server.recent import Over, Recent

PATH = "/api/requests"
MOST_LISTED = 50
_TOLD = (
    "route",
    "operation",
    "model",
    "status",
    "end",
    "error",
    "duration_ms",
    "first_byte_ms",
    "overhead_ms",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "usage_source",
    "cost",
    "attempts",
    "passed_over",
    "child_attempts",
    "upstream_request_id",
    "trace_id",
)
"""What is told of the line of the log, in this order: nothing that could be content, nor who called."""
_ENDED_AT = itemgetter("ended_at")
Said = Mapping[str, Any]


def recent_endpoints(recent: Recent, redact: Redaction) -> Iterator[Endpoint]:
    """*redact* cuts out what others echo of our secrets. They show single calls: only this machine may see these."""
    pages = _Pages(recent, redact)
    yield Endpoint("GET", PATH, pages.newest, local_only=True, merge=merge_lists)
    yield Endpoint("GET", f"{PATH}/*", pages.one, local_only=True, merge=merge_ones)


class _Pages:
    def __init__(self, recent: Recent, redact: Redaction) -> None:
        self._recent = recent
        self._redact = redact

    async def newest(self, request: EndpointRequest) -> EndpointReply:
        """The 50 that ended last, the last one first."""
        said = [self._said(it) for it in self._recent.newest(MOST_LISTED)]
        return EndpointReply(msgspec.json.encode({"requests": said}))

    async def one(self, request: EndpointRequest) -> EndpointReply:
        """The one whose id is in the path; 404 when it is not kept, or not any more."""
        found = self._recent.find(request.last)
        return _unknown() if found is None else EndpointReply(msgspec.json.encode(self._said(found)))

    def _said(self, over: Over) -> Said:
        ended_s, line = over
        fields = msgspec.to_builtins(line)
        shorten = Shortened(self._redact)
        return {
            "request_id": line.request_id,
            "started_at": _utc(ended_s - line.duration_ms / 1000),
            "ended_at": _utc(ended_s),
            **{name: shorten.value(fields[name]) for name in _TOLD if name in fields},
        }


# -- of several workers ----------------------------------------------------------------------------------------------


def merge_lists(replies: Sequence[EndpointReply]) -> EndpointReply:
    """The newest of all; workers that gave no answer are named in `missing`, counted from 1."""
    found: list[Said] = []
    missing = []
    for number, reply in enumerate(replies, start=1):
        if reply.status == 200:
            found += msgspec.json.decode(reply.body)["requests"]
        else:
            missing.append(number)
    said: dict[str, object] = {"requests": sorted(found, key=_ENDED_AT, reverse=True)[:MOST_LISTED]}
    return EndpointReply(msgspec.json.encode({**said, "missing": missing} if missing else said))


def merge_ones(replies: Sequence[EndpointReply]) -> EndpointReply:
    """That of the worker that knows it; 503 when none does, and one that might gave no answer."""
    known = [reply for reply in replies if reply.status == 200]
    if known:
        return max(known, key=lambda reply: str(_ENDED_AT(msgspec.json.decode(reply.body))))
    if all(reply.status == 404 for reply in replies):
        return _unknown()
    return _error(503, "worker_missing", "A worker that may know of it gave no answer in time")


def _unknown() -> EndpointReply:
    # Made, not raised: that of many workers only one knows of a call is no mistake for the log.
    return _error(404, "request_not_found", "No call of this id is among the last ones (recent_requests in [server])")


def _error(status: int, code: str, message: str) -> EndpointReply:
    return EndpointReply(msgspec.json.encode({"error": {"code": code, "message": message}}), status=status)


def _utc(seconds: float) -> str:
    """*seconds* since the epoch as the log writes times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
