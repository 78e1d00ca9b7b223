"""The cache is a processor as all are expected to be."""

from llmproxy_cache import llmproxy_processors

from llmproxy_core.testing import ProcessorConformance


class TestCache(ProcessorConformance):
    (processor_type,) = llmproxy_processors()
    reads_request = True  # the key is made of it
    reads_answer = True  # a refusal is not kept
    answers_itself = True
