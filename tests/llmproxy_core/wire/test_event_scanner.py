"""What a scanner of events need not be fed, and who is fed all the same."""

import re

from llmproxy_core.sse import Event
from llmproxy_core.wire import EventScanner

EVENT = b'data: {"say":"hello"}\n\n'


class Telling(EventScanner):
    telling = re.compile(rb'"over"\s*:')
    texts = re.compile(rb'"say"\s*:\s*"([^"\\]*)"')

    def note(self, event: Event) -> None:
        self.done = True


class Counting(Telling):
    """Looks at every event."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def feed(self, data: bytes) -> bytes:
        self.reads += 1
        return super().feed(data)


def fed(scanner: EventScanner, times: int = 300) -> EventScanner:
    for _ in range(times):
        assert scanner.feed(EVENT) == EVENT
    return scanner


def test_events_that_are_alike_need_not_be_fed_from_the_second_on() -> None:
    assert Telling().passes is None
    assert fed(Telling(), 1).passes is not None


def test_who_looks_at_each_read_is_fed_with_each() -> None:
    scanner = Counting()

    assert fed(scanner).passes is None
    assert scanner.reads == 300


def test_what_passed_counts_where_tokens_are_estimated() -> None:
    passed = fed(Telling())
    passes = passed.passes
    assert passes is not None
    chunk = b"17\r\n" + EVENT + b"\r\n"
    for _ in range(700):
        assert passes(chunk, b"17\r\n")

    assert passed.output_tokens() == fed(Telling(), 1000).output_tokens()
    assert passed.output_tokens() > 2 * fed(Telling()).output_tokens()


def test_tokens_are_estimated_alike_where_nearly_all_passed_from_the_beginning_on() -> None:
    passed = fed(Telling(), 1)
    passes = passed.passes
    chunk, times_fed = b"17\r\n" + EVENT + b"\r\n", 1
    for _ in range(999):
        if passes is None or not passes(chunk, b"17\r\n"):
            fed(passed, 1)
            passes, times_fed = passed.passes, times_fed + 1

    assert times_fed <= 3
    assert passed.output_tokens() == fed(Telling(), 1000).output_tokens()


def test_after_the_end_nothing_passes() -> None:
    scanner = fed(Telling())
    scanner.feed(b'data: {"over":1}\n\n')

    assert scanner.done
    assert scanner.passes is None
    assert scanner.feed(EVENT) == b""
