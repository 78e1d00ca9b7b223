"""cost_limit is a processor as all are expected to be."""

from llmproxy_cost_limit import llmproxy_processors

from llmproxy_core.testing import ProcessorConformance


class TestCostLimit(ProcessorConformance):
    (processor_type,) = llmproxy_processors()
    reads_request = True  # the cap, the choices, the media
    config = {"per_request_usd": "1000", "daily_usd": "1000", "total_usd": "1000"}
