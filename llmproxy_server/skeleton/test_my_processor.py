"""What my_processor promises."""

from llmproxy_my_processor import MY_PROCESSOR

from llmproxy_core.testing import Declared, ProcessorConformance, run


class TestMyProcessor(ProcessorConformance):
    """What every processor must do. Say here what yours declares: `changes_answer = {"text"}`, `buffers = True`, …"""

    processor_type = MY_PROCESSOR


def test_every_answer_has_the_header() -> None:
    got = run(Declared(processor_type=MY_PROCESSOR, config={"text": "welcome"}))

    assert got.header("x-my-processor") == "welcome"
