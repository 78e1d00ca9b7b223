"""What a provider says to a call, in the protocol that it is asked in. Pure: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import BadRequest, ProxyError, RouteNotFound, UpstreamError
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.request import Request
from llmproxy_server import demo_text
from llmproxy_server.demo_stream import steps
from llmproxy_server.rehearsal.script import Fault

_CREATED = 1_700_000_000  # the same in each rehearsal
_WRITES = 8
"""A streamed answer comes in at most so many writes."""


@attrs.frozen
class Spoken:
    """An answer: *pieces* are written one after the other, for a stream; a plain one has one piece."""

    status: int
    content_type: str
    pieces: tuple[bytes, ...]
    is_stream: bool = False
    is_call: bool = False
    """Whether a model was asked, so that it counts."""


def answer(dialects: Iterable[Dialect], method: str, target: str, body: bytes) -> Spoken:
    """What a provider that speaks one of *dialects* says when all is well; a refusal where it cannot answer."""
    path, _, query = target.partition("?")
    found = _located(dialects, method, path, query)
    if found is None:
        return Spoken(404, "application/json", (b'{"error": {"message": "There is nothing at this path"}}',))
    dialect, api, model = found
    try:
        return _answered(dialect, api, model, body)
    except ProxyError as error:
        return refusal(dialect, error)


def refused(dialects: Sequence[Dialect], method: str, target: str, error: ProxyError) -> Spoken:
    """*error*, as it is said in the protocol of the call."""
    path, _, query = target.partition("?")
    found = _located(dialects, method, path, query)
    spoken = refusal(dialects[0] if found is None else found[0], error)
    return attrs.evolve(spoken, is_call=found is not None and found[1].operation is not Operation.MODELS)


def refusal(dialect: Dialect, error: ProxyError) -> Spoken:
    return Spoken(dialect.error_status(error), "application/json", (dialect.write_error(error, "rehearsal"),))


def _located(dialects: Iterable[Dialect], method: str, path: str, query: str) -> tuple[Dialect, Api, str | None] | None:
    found = [
        (dialect, located.api, located.model)
        for dialect in dialects
        for located in dialect.locate(path)
        if located.api.method == method
    ]
    # Forms of one call that differ in the query alone: `alt=sse` of Gemini's streams.
    return next((it for it in found if it[1].query and it[1].query in query.split("&")), None) or next(
        (it for it in found if not it[1].query), None
    )


def _answered(dialect: Dialect, api: Api, model: str | None, body: bytes) -> Spoken:
    if api.operation is Operation.MODELS:
        models = [ModelInfo(model or "rehearsal")]
        return Spoken(200, "application/json", (dialect.write_models(api, models),))
    if api.operation is not Operation.CHAT:
        raise RouteNotFound("In a rehearsal providers answer chat only")
    request = Request(operation=Operation.CHAT, dialect=dialect, api=api, body=body, path_model=model)
    chat = request.chat
    if chat.model is None:
        raise BadRequest("The request names no model", param="model")
    reply = demo_text.answer(chat, model=chat.model, created=_CREATED)
    if not request.head.stream:
        return Spoken(200, "application/json", (dialect.write_reply(api, reply),), is_call=True)
    writer = dialect.writer(api, usage=request.head.wants_usage)
    pieces = [piece for events in steps(reply) if (piece := writer.write(events, None))]
    return Spoken(200, api.stream_type, _grouped(pieces), is_stream=True, is_call=True)


def _grouped(pieces: Sequence[bytes]) -> tuple[bytes, ...]:
    """*pieces* in few writes: the first for itself, since a token in it is the first."""
    each = max(1, -(-len(pieces) // _WRITES))
    rest = pieces[1:]
    return (*pieces[:1], *(b"".join(rest[begin : begin + each]) for begin in range(0, len(rest), each)))


def error_of(fault: Fault) -> UpstreamError:
    """What a provider with *fault* answers, of those that answer with an error."""
    match fault:
        case Fault.LIMITS:
            return UpstreamError(
                "Too many requests", status=429, code="rate_limit_exceeded", error_type="rate_limit_error"
            )
        case Fault.KEY:
            return UpstreamError(
                "The key is not valid", status=401, code="invalid_api_key", error_type="authentication_error"
            )
        case _:
            return UpstreamError("Out of order", status=503, code="server_error", error_type="server_error")
