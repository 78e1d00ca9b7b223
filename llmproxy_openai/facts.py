"""The accounting facts of a whole answer, without reading what it says."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llmproxy_core.dialect import ReplyHead
from llmproxy_core.errors import UpstreamError, UpstreamGarbage
from llmproxy_core.usage import Usage
from llmproxy_core.wire.envelope import Envelope, read_body
from llmproxy_core.wire.provider_error import reported_error
from llmproxy_openai.usage import UsualUsage, read_usage


class Outline(msgspec.Struct):
    """The top level of an answer or of a chunk; null and absent are told apart by nobody."""

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    x_groq: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    object: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()


class _Groq(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct):
    finish_reason: object = None
    usage: msgspec.Raw = msgspec.Raw()


class _UsualChoice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class _Usual(msgspec.Struct, gc=False):
    """
    An answer as nearly all are: no error, the usage at the top, each fact of the type that it should have.

    So one pass of the decoder gives them all. It does not decode any other answer.
    """

    usage: UsualUsage
    id: str | None = None
    model: str | None = None
    object: str | None = None
    service_tier: str | None = None
    choices: list[_UsualChoice] = []
    error: None = None


_decode_usual = msgspec.json.Decoder(_Usual).decode
decode_outline = msgspec.json.Decoder(Outline).decode
_decode_groq = msgspec.json.Decoder(_Groq).decode
_decode_choices = msgspec.json.Decoder(list[_Choice]).decode

# What some servers send in `error` beside an answer that is none.
NO_ERROR = frozenset({b"", b"null", b"false", b'""', b"{}"})


def scan_reply(dialect: str, body: bytes, *, has_output: bool = True) -> ReplyHead:
    """
    See `Dialect.scan_reply`. Facts of a wrong type are left out: the answer itself may be fine.

    Embeddings have no output (*has_output*).
    """
    try:
        answer = _decode_usual(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _scan_unusual(dialect, body, has_output=has_output)
    usage = answer.usage.usage(answer.service_tier)
    if usage is None or answer.object == "error":
        return _scan_unusual(dialect, body, has_output=has_output)
    if len(choices := answer.choices) == 1:
        word = choices[0].finish_reason
        finish: tuple[str, ...] = () if word is None else (word,)
    else:
        finish = tuple([each.finish_reason for each in choices if each.finish_reason is not None])
    return ReplyHead(usage, answer.model, finish, answer.id)


def _scan_unusual(dialect: str, body: bytes, *, has_output: bool) -> ReplyHead:
    """`scan_reply` of whatever it is."""
    try:
        outline = decode_outline(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage("The provider's answer is not a JSON object") from error
    if (envelope := error_in(outline, body)) is not None:
        raise reported_error(dialect, envelope, body)
    return ReplyHead(
        usage_in(outline, has_output=has_output), model_in(outline), _finish_in(outline), _text(outline.id)
    )


def stream_error(dialect: str, envelope: Envelope, data: bytes, error: msgspec.Raw) -> UpstreamError:
    """
    The error that *data*, an event of a stream, tells; *error* is its member of that name.

    Clients know an error in mid-stream by that member alone: an event without it is told in our words.
    """
    is_known = bytes(error) not in NO_ERROR
    return reported_error(dialect, envelope, data, is_own=lambda _: is_known)


def error_in(outline: Outline, text: bytes) -> Envelope | None:
    """The error that an answer or a chunk holds: an `error` that says something, or vLLM's `"object": "error"`."""
    if bytes(outline.error) in NO_ERROR and bytes(outline.object) != b'"error"':
        return None
    envelope = read_body(text)
    return envelope or Envelope("The provider reported an error without saying which.")


def usage_in(outline: Outline, *, has_output: bool = True) -> Usage | None:
    """`usage`, Groq's `x_groq.usage`, or Moonshot's `choices[0].usage`, in the service tier told beside it."""
    tier = _text(outline.service_tier)
    if (text := bytes(outline.usage)).startswith(b"{"):
        return read_usage(text, tier, has_output=has_output)
    if b'"usage"' in (choices := bytes(outline.choices)):
        usages = [bytes(each.usage) for each in _choices(choices)]
        return choice_usage(usages, tier) or groq_usage(bytes(outline.x_groq), tier)
    return groq_usage(bytes(outline.x_groq), tier)


def choice_usage(usages: Iterable[bytes], service_tier: str | None) -> Usage | None:
    """The first usage that stands in a choice; *usages* are their members of that name."""
    return next((read_usage(text, service_tier) for text in usages if text.startswith(b"{")), None)


def groq_usage(x_groq: bytes, service_tier: str | None) -> Usage | None:
    """The usage in Groq's own member."""
    if not x_groq.startswith(b"{"):
        return None
    usage = bytes(_decode_groq(x_groq).usage)
    return read_usage(usage, service_tier) if usage else None


def model_in(outline: Outline) -> str | None:
    """The model that answered, as the provider names it."""
    return _text(outline.model)


def _text(raw: msgspec.Raw) -> str | None:
    """The text in *raw*; None when it is something else, or cannot be read (half a surrogate pair)."""
    text = bytes(raw)
    try:
        return msgspec.json.decode(text, type=str) if text.startswith(b'"') else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _finish_in(outline: Outline) -> tuple[str, ...]:
    choices = _choices(bytes(outline.choices))
    return tuple(each.finish_reason for each in choices if isinstance(each.finish_reason, str))


def _choices(text: bytes) -> list[_Choice]:
    try:
        return _decode_choices(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
