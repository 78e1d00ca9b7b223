"""Errors for a client, in the form of the Responses API."""

from __future__ import annotations

from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.wire import decode_object
from llmproxy_openai import errors
from llmproxy_openai.paths import CHAT
from llmproxy_openai.responses.failure import envelope_of, events_of_failure
from llmproxy_openai.responses.paths import DIALECT

_CHAT_DIALECT = CHAT.name.partition(".")[0]


def write_error(error: ProxyError, request_id: str) -> bytes:
    """The body for *error*; the provider's own where it speaks one of OpenAI's protocols too, which share it."""
    if (body := _providers_own(error)) is not None:
        return envelope_of(body)
    return errors.write_error(DIALECT, error, request_id)


def event_of(error: ProxyError, request_id: str, *, sequence: int, response: bytes | None) -> bytes:
    """The events that end a stream with *error*."""
    body = _providers_own(error)
    envelope = write_error(error, request_id)
    facts = bytes(decode_object(envelope).get("error", b"{}"))
    return events_of_failure(error, facts, body, sequence=sequence, response=response)


def _providers_own(error: ProxyError) -> bytes | None:
    if isinstance(error, UpstreamError) and error.dialect in {DIALECT, _CHAT_DIALECT}:
        return error.body
    return None
