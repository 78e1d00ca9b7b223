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
    (UpstreamTimeout("too late for who asked", code="deadline_exceeded"), Failure.DEADLINE),
    (answered(504, "a provider's own", code="deadline_exceeded"), Failure.UPSTREAM),
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
    # Anthropic (both), xAI, llama.cpp (its servers before and since 2025-09), Text Generation Inference (both):
    (
        answered(400, "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input"),
        Failure.CONTEXT_WINDOW,
    ),
    (answered(413, "Request exceeds the maximum size", error_type="request_too_large"), Failure.CONTEXT_WINDOW),
    (
        answered(400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
        Failure.CONTEXT_WINDOW,
    ),
    (answered(400, "the request exceeds the available context size, try increasing it"), Failure.CONTEXT_WINDOW),
    (answered(500, "too long", error_type="exceed_context_size_error"), Failure.CONTEXT_WINDOW),
    (
        answered(422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000"),
        Failure.CONTEXT_WINDOW,
    ),
    (answered(422, "`inputs` must have less than 2048 tokens. Given: 2222"), Failure.CONTEXT_WINDOW),
    # Ollama, vLLM, Azure, OpenRouter, DeepSeek:
    (answered(404, 'model "llama9" not found, try pulling it first', error_type="api_error"), Failure.MODEL_NOT_FOUND),
    (answered(404, "The model `x` does not exist.", error_type="NotFoundError"), Failure.MODEL_NOT_FOUND),
    (
        answered(404, "The API deployment for this resource does not exist.", code="DeploymentNotFound"),
        Failure.MODEL_NOT_FOUND,
    ),
    (answered(400, "x is not a valid model ID"), Failure.MODEL_NOT_FOUND),
    (answered(400, "Content Exists Risk", code="invalid_request_error"), Failure.CONTENT_POLICY),
    (answered(400), Failure.CALLER),
    (answered(404), Failure.CALLER),
    (answered(400, "This model takes no images", error_type="invalid_request_error"), Failure.CALLER),
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
