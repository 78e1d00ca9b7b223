"""The test kit as a fixture."""

import pytest

from llmproxy_core.testing import Declared, NotConforming, Said
from llmproxy_core.testing.fixtures import Conforms, conforms
from tests.llmproxy_core.good_processors import REDACT

__all__ = ["conforms"]

ANSWERS = (Said(text="In 東京."),)
"""One short answer will do: other tests of the checks let them hear the long ones."""


def test_a_processor_that_does_what_it_declares_passes(conforms: Conforms) -> None:
    conforms(Declared(processor_type=REDACT, config={"word": "東京"}, answers=ANSWERS, changes_answer={"text"}))


def test_one_that_does_more_is_told_so(conforms: Conforms) -> None:
    with pytest.raises(NotConforming, match="answers_as_declared"):
        conforms(Declared(processor_type=REDACT, config={"word": "東京"}, answers=ANSWERS))
