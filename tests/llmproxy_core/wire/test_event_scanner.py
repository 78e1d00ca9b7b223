"""What a scanner of events need not be fed, who is fed all the same, and what it lets through."""

import re

import pytest

from llmproxy_core.errors import UpstreamGarbage
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


@pytest.mark.parametrize("before", [0, 1, 20])
@pytest.mark.parametrize("end", [b'data: {"over":1}\n\n', b"data: junk\n\n"])
def test_what_stands_behind_the_end_counts_for_nothing_in_the_same_read_either(end: bytes, before: int) -> None:
    scanner, other = Telling(), Telling()

    out = scanner.feed(EVENT * before + end + EVENT * 20)
    other.feed(out)

    assert scanner.output_tokens() == other.output_tokens()
    assert bool(scanner.output_tokens()) == bool(before)


def test_after_the_end_nothing_passes() -> None:
    scanner = fed(Telling())
    scanner.feed(b'data: {"over":1}\n\n')

    assert scanner.done
    assert scanner.passes is None
    assert scanner.feed(EVENT) == b""


LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
NAMED = b'event: say\ndata: {"say":"hello"}\n\n'
SAYS_DATA = b'data: {"say":"data: {"}\n\n'
PAGE = b"data: <html>bad gateway</html>\n\n"


def passed(scanner: EventScanner, *reads: bytes) -> bytes:
    return b"".join(map(scanner.feed, reads)) + scanner.end()


@LINE_ENDS
@pytest.mark.parametrize("before", [b"", EVENT, NAMED, SAYS_DATA], ids=["alone", "event", "named", "says data"])
@pytest.mark.parametrize(
    "garbage",
    [PAGE, b"event: say\n" + PAGE, b'data: {"say":\n\n', b"data: {}]\n\n"],
    ids=["page", "named", "cut", "more"],
)
def test_garbage_ends_the_stream_whatever_its_line_ends_and_what_it_came_with(
    garbage: bytes, before: bytes, end: bytes
) -> None:
    scanner = Telling()

    out = passed(scanner, (before + garbage + EVENT).replace(b"\n", end))

    assert isinstance(scanner.error, UpstreamGarbage)
    assert out == before.replace(b"\n", end)


def test_garbage_is_found_where_line_ends_are_mixed() -> None:
    scanner = Telling()

    assert passed(scanner, EVENT, b"data: <html>\n\r\n") == EVENT
    assert isinstance(scanner.error, UpstreamGarbage)


@LINE_ENDS
@pytest.mark.parametrize("before", [b"", EVENT, NAMED, SAYS_DATA], ids=["alone", "event", "named", "says data"])
@pytest.mark.parametrize("block", [b"event: ping\n\n", b"id: 4\n\n", b"data:\n\n"], ids=["event", "id", "empty"])
def test_a_block_without_data_is_left_out_whatever_its_line_ends_and_what_it_came_with(
    block: bytes, before: bytes, end: bytes
) -> None:
    scanner = Telling()

    out = passed(scanner, (before + block + EVENT).replace(b"\n", end))

    assert out == (before + EVENT).replace(b"\n", end)
    assert scanner.error is None


@LINE_ENDS
@pytest.mark.parametrize(
    "event",
    [
        EVENT,
        NAMED,
        b'data:{"say":"hello"}\n\n',
        b'event:say\ndata:{"say":"hello"}\n\n',
        b'id: 4\nevent: say\ndata: {"say":"hello"}\n\n',
        b'data: {"say":\ndata: "hello"}\n\n',
        b'data: {"say":"hello"}\nevent: say\n\n',
        b'data: {"say":"hello"} \n\n',
        b": ping\n\n",
        b"\n" + EVENT,
    ],
)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_objects_and_comments_pass_in_every_form(event: bytes, times: int, end: bytes) -> None:
    scanner = Telling()
    stream = (event * times + NAMED).replace(b"\n", end)

    assert passed(scanner, stream) == stream
    assert scanner.error is None
