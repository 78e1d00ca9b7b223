"""enhance_query does what every processor must, in the kit that third parties have."""

import llmproxy_enhance_query

from llmproxy_core.testing import ProcessorConformance

_TYPES = {kind.name: kind for kind in llmproxy_enhance_query.llmproxy_processors()}


class TestEnhanceQuery(ProcessorConformance):
    """With its defaults."""

    processor_type = _TYPES["enhance_query"]
    changes_request = True


class TestOpenaiChat(ProcessorConformance):
    """Under the name that it has always had."""

    processor_type = _TYPES["openai_chat"]
    config = {"model": "gpt-4"}
    changes_request = True
