"""Questions that a provider does not answer for their content, and says so with a status of 200."""

from __future__ import annotations

from llmproxy_core.chat import Finish, Finished, FinishReason
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import UpstreamError
from llmproxy_core.outcome import End
from llmproxy_core.response import Reply, Response, Stream

_FOR_ITS_CONTENT = frozenset({FinishReason.CONTENT_FILTER, FinishReason.REFUSAL})


def raise_if_blocked(response: Response) -> None:
    """
    End *response* with an UpstreamError where nothing is said in it but that the question is refused for its content.

    (Gemini's `promptFeedback`, a filter that lets nothing through.) Of a stream that is known only where its first
    token was waited for.
    """
    finish = _first_in(response) if isinstance(response, Stream) else _only_in(response)
    if finish is None or finish.reason not in _FOR_ITS_CONTENT:
        return
    word = finish.word or finish.reason.value
    error = UpstreamError(
        f"The provider does not answer this request for its content ({word})",
        status=400,
        code="content_filter",
        retryable=False,
        upstream_status=response.status,
    )
    response.finish(End.of(error), error)
    raise error


def _first_in(response: Stream) -> Finish | None:
    """How the answer ended, where that was the first that it said."""
    return response.begun_by.finish if isinstance(response.begun_by, Finished) else None


def _only_in(response: Reply) -> Finish | None:
    """How a whole answer ended, where that is all that it says: most are known to say more by their usage."""
    if response.api is None or response.api.operation is not Operation.CHAT:
        return None
    if response.usage is not None and response.usage.output_tokens:
        return None
    reply = response.said()
    if any(choice.content for choice in reply.choices):
        return None
    return next((choice.finish for choice in reply.choices if choice.finish is not None), None)
