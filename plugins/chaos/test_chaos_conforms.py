"""chaos is a processor as all are expected to be: where nothing strikes, and where it only waits."""

import llmproxy_chaos

from llmproxy_core.testing import ProcessorConformance

(TYPE,) = llmproxy_chaos.llmproxy_processors()


class TestChaosThatStrikesNobody(ProcessorConformance):
    processor_type = TYPE
    config = {"faults": {"cut": {"share": 0}, "latency": {"share": 0, "ms": 1000}}}


class TestChaosThatIsLate(ProcessorConformance):
    processor_type = TYPE
    config = {"faults": {"latency": {"share": 1, "ms": 1}}}


class TestChaosThatWatches(ProcessorConformance):
    """Its watcher sees all of the answer; that it passes its place is what the other tests are about."""

    processor_type = TYPE
    reads_answer = True
    config = {"faults": {"stall": {"share": 1, "ms": 0, "after_chars": 5}}}
