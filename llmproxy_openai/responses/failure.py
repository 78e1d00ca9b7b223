"""Failures in mid-stream: what the provider's own events tell, and ours."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llmproxy_core.chat import Start
from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.wire import (
    Changes,
    decode_array,
    decode_object,
    encode,
    join_array,
    join_object,
    with_members,
)
from llmproxy_openai.responses import response_object
from llmproxy_openai.responses.emitter import Emitter
from llmproxy_openai.responses.reply import failed


def stream_error(told: Sequence[bytes]) -> UpstreamError:
    """
    The error that the events *told* report: an `error`, a `response.failed`, or one after the other.

    Its body is both, in a list, for clients of this protocol.
    """
    for data in told:
        facts = _facts(data)
        if facts is not None:
            return failed(facts, keep=join_array(told))
    return failed(told[-1], keep=join_array(told))


def _facts(data: bytes) -> bytes | None:
    """The event as an envelope of an error; the members of older error events stand beside its type."""
    members = {name: bytes(raw) for name, raw in decode_object(data).items()}
    response = members.get("response", b"null")
    if response.startswith(b"{"):
        error = bytes(decode_object(response).get("error", b"null"))
        return join_object({"error": error}) if error.startswith(b"{") else None
    error = members.get("error", b"null")
    if error.startswith(b"{"):
        return join_object({"error": error})
    beside = {name: text for name, text in members.items() if name in {"code", "message", "param"}}
    return join_object({"error": join_object(beside)}) if "message" in beside else None


def envelope_of(body: bytes) -> bytes:
    """*body* as the body of an error answer: events of a stream become the error that they tell."""
    if not body.startswith(b"["):
        return body
    try:
        found = [facts for text in decode_array(body) if (facts := _facts(bytes(text))) is not None]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body
    return found[0] if found else body


def events_of_failure(
    error: ProxyError, facts: bytes, body: bytes | None, *, sequence: int, response: bytes | None
) -> bytes:
    """
    The events that end a stream with *error*: `error`, then `response.failed`.

    *facts* is the object that tells it, *body* what the provider itself said, events in a list. *sequence* is the
    number of the next event, *response* the response as it began; None: not even that was sent.
    """
    emitter = Emitter()
    emitter.sequence = sequence
    if response is None:
        response = join_object(response_object.begun(Start("", "")))
        emitter.emit("response.created", {"response": response})
    told = _told(body)
    if "error" in told:
        emitter.emit("error", {}, told["error"])
    else:
        flat = {"code": encode(error.code), "message": encode(error.message), "param": encode(error.param)}
        emitter.emit("error", flat | {"error": facts})
    if "response.failed" in told:
        emitter.emit("response.failed", _same_response(told["response.failed"], response), told["response.failed"])
    else:
        failure = response_object.failure(error.code, error.message)
        ended = with_members(response, {"status": b'"failed"', "error": failure})
        emitter.emit("response.failed", {"response": ended})
    return emitter.take()


def _same_response(event: bytes, begun: bytes) -> dict[str, bytes]:
    """What must be said otherwise in the provider's *event*, for it to end the response that has *begun*."""
    response = bytes(decode_object(event)["response"])
    known, members = decode_object(begun), decode_object(response)
    changes: Changes = {
        name: bytes(known[name])
        for name in ("id", "model")
        if name in known and name in members and bytes(known[name]) != bytes(members[name])
    }
    return {"response": with_members(response, changes)} if changes else {}


def _told(body: bytes | None) -> dict[str, bytes]:
    """The provider's own events, by type."""
    if body is None or not body.startswith(b"["):
        return {}
    try:
        events = [bytes(text) for text in decode_array(body)]
        return {_decode_type(text).type: text for text in events}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


class _Type(msgspec.Struct):
    type: str = ""


_decode_type = msgspec.json.Decoder(_Type).decode
