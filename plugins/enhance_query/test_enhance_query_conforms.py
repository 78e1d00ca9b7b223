"""enhance_query does what every processor must, in the kit that third parties have."""

import attrs
import llmproxy_enhance_query

from llmproxy_core.testing import ProcessorConformance

_TYPES = {kind.name: kind for kind in llmproxy_enhance_query.llmproxy_processors()}


class TestEnhanceQuery(ProcessorConformance):
    """With its defaults."""

    processor_type = _TYPES["enhance_query"]
    changes_request = True


def test_its_old_name_is_the_same_in_all_but_the_name() -> None:
    assert attrs.evolve(_TYPES["openai_chat"], name="enhance_query") == _TYPES["enhance_query"]
