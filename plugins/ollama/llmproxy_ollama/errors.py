"""Errors: `{"error": "text"}`, as an answer and as a line of a stream."""

import msgspec

from llmproxy_core import Headers, ProxyError, UpstreamError
from llmproxy_core.wire import Envelope, decode_object, encode, join_object, read_body, reported_error
from llmproxy_core.wire import read_error as read_any_error
from llmproxy_ollama.apis import NAME

_OVERLOADED = 529
_BUSY = 503


def _is_own(body: bytes) -> bool:
    """Whether clients of Ollama can read *body*: its `error` is a text."""
    try:
        return bytes(decode_object(body).get("error", b"")).startswith(b'"')
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def read_error(status: int, headers: Headers, crossing: tuple[tuple[str, str], ...], body: bytes) -> UpstreamError:
    own = _is_own(body)
    return read_any_error(NAME, status, headers, crossing, body, is_own=lambda _: own)


def told_error(body: bytes) -> UpstreamError:
    """The error that *body*, an answer of status 200 or a line of a stream, tells."""
    own = _is_own(body)
    envelope = read_body(body) or Envelope("The provider failed without saying why")
    return reported_error(NAME, envelope, body, is_own=lambda _: own)


def error_status(error: ProxyError) -> int:
    """The status of *error*: Ollama knows no 529."""
    is_own = isinstance(error, UpstreamError) and error.dialect == NAME
    return _BUSY if error.status == _OVERLOADED and not is_own else error.status


def write_error(error: ProxyError) -> bytes:
    if isinstance(error, UpstreamError) and error.dialect == NAME and error.body is not None:
        return error.body  # the provider's own words
    return join_object({"error": encode(error.message)})
