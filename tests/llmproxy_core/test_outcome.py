"""The four ways an answer can end."""

import pytest

from llmproxy_core import GuardrailBlocked, InternalError, ProxyError, StreamingNotAllowed, UpstreamCut
from llmproxy_core.outcome import End, Outcome


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, End.COMPLETED),
        (UpstreamCut("cut"), End.FAILED),
        (InternalError("a bug"), End.FAILED),
        (ProxyError("somebody"), End.FAILED),
        (GuardrailBlocked("no"), End.REFUSED),
        (StreamingNotAllowed("no"), End.REFUSED),
    ],
)
def test_an_error_says_how_it_ends_a_call(error: ProxyError | None, end: End) -> None:
    assert End.of(error) is end


def test_an_outcome_knows_nothing_until_it_is_told() -> None:
    """No usage and no cost is not the same as nothing used and nothing paid."""
    outcome = Outcome(End.COMPLETED)

    assert (outcome.usage, outcome.cost, outcome.model, outcome.body, outcome.error) == (None, None, None, None, None)
