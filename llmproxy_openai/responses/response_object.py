"""The response object: what an answer has around its items, and the beginning and end of each stream."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from llmproxy_core.chat import Finish, Start
from llmproxy_core.usage import Usage
from llmproxy_core.wire import encode, join_array, join_object, made_id
from llmproxy_openai.reply import tier_of
from llmproxy_openai.responses.finish import write_finish
from llmproxy_openai.responses.repeated import SILENCE
from llmproxy_openai.responses.usage import write_usage


def begun(start: Start, asked: Mapping[str, bytes] = SILENCE) -> dict[str, bytes]:
    """
    The members of a response that has just begun, *asked* being those that repeat the request.

    An id and a time are made up where the provider gave none.
    """
    created = int(time.time()) if start.created is None else start.created
    return {
        "id": encode(start.id or made_id(time.time_ns(), prefix="resp_")),
        "object": b'"response"',
        "created_at": encode(created),
        "status": b'"in_progress"',
        "error": b"null",
        "incomplete_details": b"null",
        "model": encode(start.model or "unknown"),
        "output": b"[]",
        "service_tier": encode(tier_of(start.service_tier) or "default"),
        "usage": b"null",
        **asked,
    }


def ended(items: Iterable[bytes], finish: Finish | None, usage: Usage | None) -> dict[str, bytes]:
    """The members that are others once the response has ended."""
    status, reason = write_finish(finish)
    members = {
        "status": encode(status),
        "output": join_array(items),
        "usage": b"null" if usage is None else write_usage(usage),
    }
    if usage is not None and (tier := tier_of(usage.service_tier)) is not None:
        members["service_tier"] = encode(tier)
    if status == "completed":
        members["completed_at"] = encode(int(time.time()))
    if reason is not None:
        members["incomplete_details"] = join_object({"reason": encode(reason)})
    if status == "failed":
        message = (finish.detail if finish is not None else None) or "The provider ended the answer with an error."
        members["error"] = failure("server_error", message)
    return members


def failure(code: str, message: str) -> bytes:
    """The `error` of a failed response."""
    return join_object({"code": encode(code), "message": encode(message)})
