"""Which failures are worth another try, and where."""

from __future__ import annotations

import pytest

from llmproxy_core.errors import (
    BadRequest,
    InternalError,
    Overloaded,
    ProxyError,
    RouteNotFound,
    Unsupported,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.resilience.failure import Failure, Unavailable, failure_of


def answered(status: int, message: str = "Sorry", **more: str) -> UpstreamError:
    return UpstreamError(message, status=status, upstream_status=status, **more)  # type: ignore[arg-type]


CASES: list[tuple[ProxyError, Failure]] = [
    (answered(500), Failure.UPSTREAM),
    (answered(529), Failure.UPSTREAM),
    (answered(408), Failure.UPSTREAM),
    (UpstreamCut("cut"), Failure.UPSTREAM),
    (UpstreamTimeout("late"), Failure.UPSTREAM),
    (UpstreamGarbage("what"), Failure.UPSTREAM),
    (UpstreamError("told in a stream", status=502, upstream_status=200), Failure.UPSTREAM),
    (UpstreamConnectError("nobody there"), Failure.CONNECT),
    (answered(429), Failure.RATE_LIMIT),
    (UpstreamError("told in a stream", status=429, upstream_status=200), Failure.RATE_LIMIT),
    (UpstreamAuthError("no", upstream_status=401), Failure.AUTH),
    # OpenAI, Anthropic, Gemini, Mistral, as they are recorded or documented:
    (answered(400, code="context_length_exceeded"), Failure.CONTEXT_WINDOW),
    (answered(400, "prompt is too long: 208310 tokens > 200000 maximum"), Failure.CONTEXT_WINDOW),
    (
        answered(400, "The input token count (1048577) exceeds the maximum number of tokens allowed"),
        Failure.CONTEXT_WINDOW,
    ),
    (
        answered(400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"),
        Failure.CONTEXT_WINDOW,
    ),
    (answered(400, code="content_filter"), Failure.CONTENT_POLICY),
    (answered(400, "Your request was rejected as a result of our safety system"), Failure.CONTENT_POLICY),
    (answered(404, code="model_not_found"), Failure.MODEL_NOT_FOUND),
    (answered(404, "model: claude-9", error_type="not_found_error"), Failure.MODEL_NOT_FOUND),
    (answered(400, "Invalid model: x", code="invalid_model"), Failure.MODEL_NOT_FOUND),
    (answered(400), Failure.CALLER),
    (answered(404), Failure.CALLER),
    (answered(413), Failure.CALLER),
    (answered(422), Failure.CALLER),
    (BadRequest("no"), Failure.CALLER),
    (Unsupported("no"), Failure.UNSUPPORTED),
    (RouteNotFound("no such model"), Failure.UNSUPPORTED),
    (Unavailable("resting"), Failure.UNAVAILABLE),
    (Overloaded("full"), Failure.UNAVAILABLE),
    (InternalError("a bug"), Failure.OURS),
]


@pytest.mark.parametrize(
    ("error", "expected"), CASES, ids=lambda it: it.value if isinstance(it, Failure) else str(it)[:20]
)
def test_every_error_is_of_one_kind(error: ProxyError, expected: Failure) -> None:
    assert failure_of(error) is expected


def test_what_was_not_asked_says_nothing_of_an_upstream() -> None:
    for failure in Failure:
        assert failure.was_asked or not (failure.is_upstreams or failure.rests)
