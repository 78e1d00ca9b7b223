"""What a span says of a model's work: how it was asked, and what it used. Nothing of what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError, raise_unless_bug
from llmproxy_core.outcome import Outcome
from llmproxy_core.request import Request
from llmproxy_server.log_events import get_logger
from llmproxy_server.log_redact import Redaction
from llmproxy_server.telemetry import conventions as names

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

_log = get_logger()
_MOST_STOPS = 16
_LONGEST = 256
_FORMATS = {"text": "text", "json_object": "json", "json_schema": "json"}


def cut(text: str, most: int, redact: Redaction) -> str:
    """*text* up to *most* characters, and no part of a secret at its end: the whole ones are cut out of the span."""
    return text if len(text) <= most else redact.head(text, most)


def request_attributes(request: Request, redact: Redaction) -> dict[str, AttributeValue]:
    """The parameters of *request*; of one that cannot be read, what was read before."""
    found: dict[str, AttributeValue] = {}
    if request.operation is Operation.EMBEDDINGS:
        return _embeddings_attributes(request, redact)
    if request.operation is not Operation.CHAT:
        return found
    try:
        chat = request.parameters
    except ProxyError:  # the provider may read what we cannot
        return found
    except BaseException as bug:  # noqa: BLE001 - a mistake in a dialect; there is more to tell of the call
        raise_unless_bug(bug)
        _log.exception("the parameters of a request cannot be told", api=request.api and request.api.name)
        return found
    said: dict[str, AttributeValue | None] = {
        names.REQUEST_STREAM: chat.stream or None,
        names.REQUEST_MAX_TOKENS: chat.max_output_tokens,
        names.REQUEST_TEMPERATURE: _double(chat.temperature),
        names.REQUEST_TOP_P: _double(chat.top_p),
        names.REQUEST_TOP_K: _double(chat.top_k),
        names.REQUEST_FREQUENCY_PENALTY: _double(chat.frequency_penalty),
        names.REQUEST_PRESENCE_PENALTY: _double(chat.presence_penalty),
        names.REQUEST_SEED: chat.seed,
        names.REQUEST_CHOICE_COUNT: chat.n if chat.n != 1 else None,
        names.REQUEST_STOP_SEQUENCES: tuple(cut(it, _LONGEST, redact) for it in chat.stop[:_MOST_STOPS]) or None,
    }
    if chat.reasoning is not None and chat.reasoning.effort is not None:
        said[names.REQUEST_REASONING_LEVEL] = cut(chat.reasoning.effort, _LONGEST, redact)
    if chat.response_format is not None:
        said[names.OUTPUT_TYPE] = _FORMATS.get(chat.response_format.kind)
    return {name: value for name, value in said.items() if value is not None and _fits(value)}


def _embeddings_attributes(request: Request, redact: Redaction) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    try:
        members = request.json
    except ProxyError:
        return found
    size, form = (_plain(members.get(name)) for name in ("dimensions", "encoding_format"))
    if isinstance(size, int) and not isinstance(size, bool) and _fits(size):
        found[names.EMBEDDINGS_DIMENSION_COUNT] = size
    if isinstance(form, str):
        found[names.REQUEST_ENCODING_FORMATS] = (cut(form, _LONGEST, redact),)
    return found


def _plain(member: msgspec.Raw | None) -> object:
    try:
        return None if member is None else msgspec.json.decode(member)
    except msgspec.DecodeError:
        return None


def _double(value: float | None) -> float | None:
    """What the conventions have as a double, though `0` or `1` was said: back ends fix the type of an attribute."""
    return None if value is None or not _fits(value) else float(value)


def _fits(value: object) -> bool:
    """Whether OTLP can say it: integers have 64 bits there."""
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 63


def response_attributes(outcome: Outcome, began_s: float, redact: Redaction) -> dict[str, AttributeValue]:
    """What *outcome*, of an answer that was asked for at *began_s*, tells."""
    found: dict[str, AttributeValue] = {names.END: str(outcome.end)}
    if outcome.model:
        found[names.RESPONSE_MODEL] = cut(outcome.model, _LONGEST, redact)
    if outcome.response_id:
        found[names.RESPONSE_ID] = cut(outcome.response_id, _LONGEST, redact)
    if outcome.finish:
        found[names.RESPONSE_FINISH_REASONS] = tuple(cut(it, _LONGEST, redact) for it in outcome.finish[:_MOST_STOPS])
    if outcome.first_byte_s is not None and outcome.first_byte_s > outcome.started_s:  # else it came whole
        found[names.RESPONSE_TIME_TO_FIRST_CHUNK] = max(outcome.first_byte_s - began_s, 0.0)
    if outcome.cost is not None:
        found[names.COST_USD] = outcome.cost.nanodollars / 1e9
    if (usage := outcome.usage) is not None:
        found[names.USAGE_SOURCE] = str(usage.source)
        counts = {
            names.INPUT_TOKENS: usage.input_tokens,
            names.OUTPUT_TOKENS: usage.output_tokens,
            names.CACHE_READ_INPUT_TOKENS: usage.cached_input_tokens,
            names.CACHE_WRITE_INPUT_TOKENS: usage.cache_write_tokens,
            names.REASONING_OUTPUT_TOKENS: usage.reasoning_tokens,
            names.AUDIO_INPUT_TOKENS: usage.audio_input_tokens,
            names.AUDIO_OUTPUT_TOKENS: usage.audio_output_tokens,
        }
        always = (names.INPUT_TOKENS, names.OUTPUT_TOKENS)
        found.update({name: count for name, count in counts.items() if count or name in always})
    return found
