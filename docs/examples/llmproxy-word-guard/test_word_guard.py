"""What word_guard promises."""

import pytest
from llmproxy_word_guard import WORD_GUARD

from llmproxy_core import End, GuardrailBlocked
from llmproxy_core.testing import Declared, ProcessorConformance, run

GUARD = Declared(processor_type=WORD_GUARD, config={"words": ["Daedalus"]})


class TestWordGuard(ProcessorConformance):
    """What every processor must do, and what this one declares."""

    processor_type = WORD_GUARD
    config = {"words": ["Daedalus"]}
    reads_request = True
    reads_answer = True


def test_a_word_in_the_question_does_not_reach_the_llm() -> None:
    got = run(GUARD, "Tell me about Daedalus")

    assert isinstance(got.error, GuardrailBlocked)
    assert got.sent == ()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_word_in_the_answer_does_not_reach_the_client(stream: bool) -> None:
    got = run(GUARD, says="It is called Daedalus.", stream=stream)

    assert isinstance(got.error, GuardrailBlocked)
    assert "Daedalus" not in got.text
    assert got.outcome.end is End.REFUSED


def test_all_else_passes_as_it_is() -> None:
    got = run(GUARD, "What is a maze?", "A way in, and hardly one out.", stream=True)

    assert got.text == "A way in, and hardly one out."
