"""About how many bytes of memory calls hold whose spans are not made yet."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxy_core.attempt import Attempt
from llmproxy_core.chat import Part, ReasoningPart, TextPart, ToolCall, ToolResult
from llmproxy_core.errors import raise_unless_bug
from llmproxy_core.outcome import KeptBody
from llmproxy_core.request import Request
from llmproxy_server.record import Ended

_CALL = 8 << 10
"""An exchange and what belongs to it, without bodies."""


def call_bytes(ended: Ended) -> int:
    """Quick: it is asked of every call that is recorded. Never raises."""
    exchange = ended.exchange
    attempts = [*exchange.attempts, *exchange.child_attempts] if exchange.child_calls else exchange.attempts
    requests = {id(exchange.request): exchange.request}
    size = _CALL
    for attempt in attempts:
        if (request := attempt.request) is not None:
            requests[id(request)] = request
    for request in requests.values():
        size += _request(request)
    if (body := ended.body) is not None:
        size += _answer(body)
    for other in _other_answers(attempts, body):
        size += _answer(other)
    return size


def _other_answers(attempts: list[Attempt], answer: KeptBody | None) -> Iterator[KeptBody]:
    """What processors let be kept of the answers of *attempts*."""
    for attempt in attempts:
        outcome = attempt.outcome
        if outcome is not None and outcome.body is not None and outcome.body is not answer:
            yield outcome.body


def _answer(body: KeptBody) -> int:
    """That of a stream is held in its pieces, too, by who kept it."""
    return len(body.data) * (2 if body.stream else 1)


def _request(request: Request) -> int:
    try:
        if size := len(request.body):
            return size
        if request.api is not None or request.dialect is not None:
            return 0
        return sum(_part(part) for turn in request.chat.messages for part in turn.content)
    except BaseException as bug:  # noqa: BLE001 - what its own dialect cannot write, or nothing that has a body: its spans say why
        raise_unless_bug(bug)
        return 0


def _part(part: Part) -> int:
    """Of a request of a processor's own, which has no body but the one that was sent for it."""
    match part:
        case TextPart() | ReasoningPart():
            return len(part.text)
        case ToolCall():
            return len(part.arguments)
        case ToolResult():
            return sum(map(_part, part.content))
        case _:
            source = getattr(part, "source", None)
            return 0 if source is None else len(source.data or source.text or "")
