"""The demo LLM's models: their names, the errors that some of them are, and the mark on every answer."""

from __future__ import annotations

from llmproxy_core.errors import UpstreamError

MODELS = ("demo", "demo/slow", "demo/error-429", "demo/error-500", "demo/cut", "demo/stall")
"""The models that mean something; any name that does not begin with `demo/` behaves like the first."""


def error_of(model: str) -> UpstreamError | None:
    """The error that *model* always answers with, without a body; None for one that answers."""
    if model == "demo/error-429":
        return UpstreamError(
            "Too many requests: the demo refuses every one for this model. Try again in 1 s.",
            status=429,
            code="rate_limit_exceeded",
            retry_after_s=1.0,
            error_type="rate_limit_error",
            upstream_status=429,
        )
    if model == "demo/error-500":
        return UpstreamError(
            "The demo failed, as it does on every request for this model.",
            status=500,
            code="server_error",
            error_type="server_error",
            upstream_status=500,
        )
    if model.startswith("demo/") and model not in MODELS:
        return UpstreamError(
            f'The demo has no model "{printable(model)}"; it has {", ".join(MODELS)}',
            status=404,
            code="model_not_found",
            retryable=False,
            param="model",
            error_type="invalid_request_error",
            upstream_status=404,
        )
    return None


def demo_headers(model: str) -> list[tuple[str, str]]:
    """The mark that no model answered; to a client that asked for a real one, with the reason."""
    if model.startswith("demo"):
        return [("x-llmproxy-demo", "true")]
    reason = f'no provider key is configured; the built-in demo answered instead of "{printable(model)}"'
    return [("x-llmproxy-demo", reason)]


def printable(model: str) -> str:
    """*model* as it may stand between quotes in a header: printable ASCII, at most 100 characters."""
    text = "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in model[:101])
    return text if len(text) <= 100 else text[:97] + "..."
