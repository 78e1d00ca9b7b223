"""The thread that writes the log: nothing waits for it, and what is lost is counted."""

import asyncio
import errno
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec
import pytest

from llmproxy_server import log_writer
from llmproxy_server.log_line import Entry, JsonLines, Lines
from llmproxy_server.log_output import PIPE_BYTES, Output
from llmproxy_server.log_writer import FLUSH_S, MOST_BYTES, MOST_LINES, LineWriter
from tests.llmproxy_server.transporting import until

WAIT_S = 20.0


def said(n: int, *, level: int = logging.INFO, size: int = 512, text: str = "") -> Entry:
    return Entry(time.time(), "llmproxy.access", level, "exchange", {"n": n, "text": text}, size=size)


def numbers(lines: list[dict[str, Any]]) -> list[int]:
    return [line["n"] for line in lines if "n" in line]


class Pipe:
    """A pipe that nobody reads until `read` is called."""

    def __init__(self, *, blocking: bool = True) -> None:
        self.reader, descriptor = os.pipe()
        os.set_blocking(descriptor, blocking)
        self.stream: TextIO = os.fdopen(descriptor, "w")
        self._read = bytearray()
        self._thread: threading.Thread | None = None

    def read(self) -> None:
        """Read all that comes from now on."""
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        while data := os.read(self.reader, 1 << 16):
            self._read += data

    def lines(self) -> list[dict[str, Any]]:
        """What came, once the writing end is closed."""
        self.stream.close()
        assert self._thread is not None
        self._thread.join(WAIT_S)
        os.close(self.reader)
        return [json.loads(line) for line in self._read.decode().splitlines()]


@pytest.fixture
def writers() -> Iterator[list[LineWriter]]:
    made: list[LineWriter] = []
    yield made
    for writer in made:
        writer.close()


def writer_to(stream: TextIO, writers: list[LineWriter], lines: Lines | None = None) -> LineWriter:
    writers.append(LineWriter(Output(stream), lines or JsonLines()))
    return writers[-1]


async def test_a_pipe_that_nobody_reads_never_stops_the_loop(writers: list[LineWriter]) -> None:
    pipe = Pipe()
    writer = writer_to(pipe.stream, writers)
    turns = 0

    for n in range(3 * MOST_LINES):
        writer.put(said(n))
        if n % 100 == 0:
            await asyncio.sleep(0)
            turns += 1
    lost = writer.dropped
    pipe.read()
    assert writer.flush(WAIT_S)
    writer.put(said(-1))
    assert writer.flush(WAIT_S)
    writer.close()
    lines = pipe.lines()

    assert turns == 3 * MOST_LINES // 100
    assert lost >= MOST_LINES
    assert writer.dropped == lost
    assert len(numbers(lines)) == 3 * MOST_LINES + 1 - lost
    *before, last = numbers(lines)
    assert before[:9000] == list(range(9000))
    assert before == sorted(before)
    assert last == -1
    told = [line for line in lines if "dropped" in line]
    assert [line["message"] for line in told] == ["log lines were dropped"] * len(told)
    assert sum(line["dropped"] for line in told) == told[-1]["dropped_in_all"] == lost
    assert told[0]["level"] == "warn"


def test_what_waits_is_bounded_by_its_size_too(writers: list[LineWriter]) -> None:
    pipe = Pipe()
    writer = writer_to(pipe.stream, writers)

    for n in range(100):
        writer.put(said(n, size=MOST_BYTES // 10))
    pipe.read()
    assert writer.flush(WAIT_S)
    writer.close()

    assert writer.dropped >= 89
    assert len(numbers(pipe.lines())) == 100 - writer.dropped


def test_content_goes_before_its_line_does(writers: list[LineWriter]) -> None:
    pipe = Pipe()
    writer = writer_to(pipe.stream, writers)
    with_content = said(1, size=MOST_BYTES)
    with_content.content = lambda: {"query": "hello"}
    too_much = said(2, size=MOST_BYTES)
    too_much.content = lambda: {"query": "never seen"}

    writer.put(said(0, text="x"))
    writer.put(too_much)
    pipe.read()
    assert writer.flush(WAIT_S)
    writer.put(with_content)
    assert writer.flush(WAIT_S)
    writer.close()

    zero, dropped, whole = pipe.lines()
    assert (zero["n"], writer.dropped) == (0, 0)
    assert dropped["content_dropped"]
    assert "query" not in dropped
    assert whole["query"] == "hello"


def test_there_is_room_for_warnings_when_there_is_none_for_others(writers: list[LineWriter]) -> None:
    pipe = Pipe()
    writer = writer_to(pipe.stream, writers)

    for n in range(MOST_LINES + 5000):
        writer.put(said(n))
    lost = writer.dropped
    for n in range(100):
        writer.put(said(-n - 1, level=logging.ERROR))
    assert writer.dropped == lost > 0
    pipe.read()
    assert writer.flush(WAIT_S)
    writer.close()

    assert [n for n in numbers(pipe.lines()) if n < 0] == [-n - 1 for n in range(100)]


def test_a_full_pipe_that_does_not_block_is_waited_for(writers: list[LineWriter]) -> None:
    pipe = Pipe(blocking=False)
    writer = writer_to(pipe.stream, writers)

    for n in range(3000):
        writer.put(said(n, text="x" * 100))
    assert not writer.flush(0.05)
    pipe.read()
    due_s = time.monotonic() + WAIT_S
    while not writer.flush(WAIT_S):  # what was stuck just now is not waited for long
        assert time.monotonic() < due_s
    writer.close()

    assert numbers(pipe.lines()) == list(range(3000))
    assert writer.dropped == 0


class Slow(io.StringIO):
    """Takes its time for each write."""

    def write(self, text: str) -> int:
        threading.Event().wait(0.02)
        return super().write(text)


def test_an_output_that_is_slow_but_goes_on_is_waited_for(writers: list[LineWriter]) -> None:
    stream = Slow()
    writer = writer_to(stream, writers)
    for n in range(200):
        writer.put(said(n))

    began_s = time.monotonic()
    assert writer.flush(0.3)

    assert time.monotonic() - began_s > 0.3
    assert len(stream.getvalue().splitlines()) == 200


def test_a_flush_of_a_stuck_output_ends_in_time_and_the_next_one_at_once(writers: list[LineWriter]) -> None:
    pipe = Pipe()
    writer = writer_to(pipe.stream, writers)
    for n in range(2000):
        writer.put(said(n))

    began = time.monotonic()
    assert not writer.flush()
    first_s, began = time.monotonic() - began, time.monotonic()
    writer.close()
    second_s = time.monotonic() - began
    lost = writer.dropped
    writer.put(said(1))

    assert FLUSH_S <= first_s < FLUSH_S + 5
    assert second_s < FLUSH_S
    assert writer.dropped == lost + 1, "nobody would write it any more"
    os.close(pipe.reader)
    pipe.stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_lines_and_nothing_else(writers: list[LineWriter], capfd: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        writer = writer_to(full, writers)
        for n in range(100):
            writer.put(said(n))
        assert writer.flush(WAIT_S)
        writer.put(said(100, level=logging.ERROR))
        assert writer.flush(WAIT_S)

    assert writer.dropped == 101
    assert capfd.readouterr() == ("", "")


def test_a_pipe_whose_reader_is_gone_costs_lines_and_nothing_else(
    writers: list[LineWriter], capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    writer = writer_to(pipe.stream, writers)

    for n in range(100):
        writer.put(said(n))
    assert writer.flush(WAIT_S)
    pipe.stream.close()
    writer.put(said(100))
    assert writer.flush(WAIT_S)

    assert writer.dropped == 101
    assert capfd.readouterr() == ("", "")


class Failing(io.StringIO):
    """Fails with *error* while it has one."""

    def __init__(self) -> None:
        super().__init__()
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_once_the_output_works_again_a_line_tells_what_was_lost(number: int, writers: list[LineWriter]) -> None:
    out = Failing()
    writer = writer_to(out, writers)

    for error, n in [(None, 0), (OSError(number, "broken"), 1), (OSError(number, "broken"), 2), (None, 3)]:
        out.error = error
        writer.put(said(n))
        assert writer.flush(WAIT_S)

    first, told, last = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (first["n"], told["dropped"], last["n"]) == (0, 2, 3)
    assert writer.dropped == 2


def test_half_a_line_is_never_taken_for_the_beginning_of_the_next(tmp_path: Path) -> None:
    """A disk that fills up in the middle of a line: the limit of a file's size stands for it."""
    code = """
import resource, signal, sys
from llmproxy_server.log_output import Output
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open(sys.argv[1], "w") as file:
    output = Output(file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
    print(output.write([b"one-line-1\\n", b"two-line-2\\n", b"three-3\\n"]), output.write([b"none\\n"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(output.write([b"four\\n"]))
"""
    path = tmp_path / "log"

    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True
    )

    assert ran.stdout.split() == ["2", "0", "1"]
    assert path.read_text() == "one-line-1\ntwo-line-2\nthr\nfour\n"


def test_a_closed_descriptor_that_is_given_to_another_file_gets_no_lines(
    writers: list[LineWriter], tmp_path: Path
) -> None:
    pipe = Pipe()
    writer = writer_to(pipe.stream, writers)
    number = pipe.stream.fileno()
    pipe.stream.close()
    with (tmp_path / "other").open("w") as other:
        assert other.fileno() == number
        writer.put(said(1))
        assert writer.flush(WAIT_S)

    assert (tmp_path / "other").read_text() == ""
    assert b'"n":1' in os.read(pipe.reader, 1000)
    os.close(pipe.reader)


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
async def test_lines_of_one_moment_are_written_together_and_a_warning_is_on_its_way_at_once(
    level: int, writers: list[LineWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "GATHER_S", 3600.0)
    writes: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    writer = writer_to(Stream(), writers)
    for n in range(5):
        writer.put(said(n))
        await asyncio.sleep(0)
    assert not writes
    writer.put(said(5, level=level))
    await until(lambda: bool(writes))

    assert [write.count("\n") for write in writes] == [6]


async def test_a_line_waits_for_others_but_not_for_long(writers: list[LineWriter]) -> None:
    out = io.StringIO()
    writer_to(out, writers).put(said(1))

    await until(lambda: bool(out.getvalue()))


class Panic(BaseException):
    """As a library in Rust raises it: no Exception."""


@pytest.mark.parametrize("in_loop", [False, True], ids=["in the thread", "in the loop"])
@pytest.mark.parametrize("bug", [ZeroDivisionError, SystemExit, Panic])
async def test_a_value_that_cannot_be_said_costs_its_own_line_only(
    bug: type[BaseException], in_loop: bool, writers: list[LineWriter]
) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise bug("sk-never-shown")

    out = io.StringIO()
    writer = writer_to(out, writers)
    if in_loop:
        writer.start()
        writer.follow(asyncio.get_running_loop())
    for value in (1, Unspeakable(), 2):
        writer.put(Entry(1.0, "x", logging.INFO, "m", {"n": value}))

    class Broken(msgspec.Struct):
        value: object

    writer.put(Entry(1.0, "x", logging.INFO, "m", Broken(Unspeakable())))
    await until(lambda: not writer.waiting)

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line.get("n") for line in lines] == [1, None, 2, None]
    assert [line.get("error_type") for line in lines] == [None, bug.__name__, None, "TypeError"]
    assert "sk-never-shown" not in out.getvalue()


@pytest.mark.parametrize("bug", [ZeroDivisionError, SystemExit, Panic])
def test_a_form_that_fails_altogether_is_counted_and_the_next_one_is_used(
    bug: type[BaseException], writers: list[LineWriter]
) -> None:
    class Broken:
        def quickly(self, entries: Sequence[Entry]) -> list[bytes] | None:
            raise bug

        def line(self, entry: Entry) -> str:
            raise bug

    out = io.StringIO()
    writer = writer_to(out, writers, Broken())
    writer.put(said(1))
    assert writer.flush(WAIT_S)
    writer.lines = JsonLines()
    writer.put(said(2))
    assert writer.flush(WAIT_S)

    assert writer.dropped == 1
    assert [json.loads(line).get("n") for line in out.getvalue().splitlines()] == [None, 2]


def test_many_threads_lose_nothing_and_keep_their_order(writers: list[LineWriter]) -> None:
    out = io.StringIO()
    writer = writer_to(out, writers)

    def some(thread: int) -> None:
        for n in range(500):
            writer.put(said(thread * 1000 + n))

    threads = [threading.Thread(target=some, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert writer.flush(WAIT_S)

    lines = numbers([json.loads(line) for line in out.getvalue().splitlines()])
    assert len(lines) == 4000
    for thread_number in range(8):
        assert [n % 1000 for n in lines if n // 1000 == thread_number] == list(range(500))


async def test_lines_that_an_event_loop_makes_come_whole_and_in_order(writers: list[LineWriter]) -> None:
    """Also between those of threads, and those with content, which the thread makes."""
    out = io.StringIO()
    writer = writer_to(out, writers)
    writer.start()
    writer.follow(asyncio.get_running_loop())
    loud = [n for n in range(1000) if n % 97 == 0]

    def more() -> None:
        for n in range(1000, 1500):
            writer.put(said(n))

    thread = threading.Thread(target=more)
    thread.start()
    for n in range(1000):
        level = logging.WARNING if n in loud else logging.INFO
        content = (lambda: {"text": "x"}) if n % 31 == 0 else None
        writer.put(Entry(1.0, "x", level, "m", {"n": n}, content=content))
        if n % 10 == 0:
            await asyncio.sleep(0)
    thread.join(WAIT_S)
    # Not in a loop that turns all the while: it would hardly let another thread have its turn with the interpreter.
    assert await asyncio.to_thread(writer.flush, WAIT_S)

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [n for n in numbers(lines) if n < 1000] == list(range(1000))
    assert [n for n in numbers(lines) if n >= 1000] == list(range(1000, 1500))
    assert [line["n"] for line in lines if "text" in line and line["n"] < 1000 and line["logger"] == "x"] == list(
        range(0, 1000, 31)
    )


async def test_the_thread_takes_no_turn_for_each_of_the_lines_that_a_loop_makes(writers: list[LineWriter]) -> None:
    made_in: list[int] = []

    class Noting(JsonLines):
        def line(self, entry: Entry) -> str:
            made_in.append(threading.get_ident())
            return super().line(entry)

    out, begun = io.StringIO(), threading.Event()
    writer = LineWriter(Output(out), Noting(), warm_up=begun.set)
    writers.append(writer)
    writer.start()
    await until(begun.is_set)
    writer.follow(asyncio.get_running_loop())
    for n in range(200):
        writer.put(said(n))
    await until(lambda: len(out.getvalue().splitlines()) == 200)
    in_loop = list(made_in)
    writer.follow(None)
    writer.put(said(200))
    await until(lambda: len(out.getvalue().splitlines()) == 201)

    assert set(in_loop) == {threading.get_ident()}
    assert made_in[-1] != threading.get_ident()


async def test_a_flush_writes_what_a_loop_has_not_made_yet(writers: list[LineWriter]) -> None:
    out = io.StringIO()
    writer = writer_to(out, writers)
    writer.start()
    writer.follow(asyncio.get_running_loop())
    writer.put(said(1))

    assert writer.flush(WAIT_S)

    assert numbers([json.loads(line) for line in out.getvalue().splitlines()]) == [1]


@pytest.mark.parametrize("bug", [ZeroDivisionError, SystemExit, Panic])
async def test_a_form_that_fails_in_a_loop_is_counted_and_fails_no_call(
    bug: type[BaseException], writers: list[LineWriter]
) -> None:
    class Broken:
        def quickly(self, entries: Sequence[Entry]) -> list[bytes] | None:
            return None

        def line(self, entry: Entry) -> str:
            raise bug

    writer = writer_to(io.StringIO(), writers, Broken())
    writer.start()
    writer.follow(asyncio.get_running_loop())
    writer.put(said(1))

    await until(lambda: writer.dropped == 1)


def test_a_signal_that_interrupts_a_put_may_log_itself(writers: list[LineWriter]) -> None:
    out = io.StringIO()
    writer = writer_to(out, writers)

    with writer._lock:  # as if the handler ran in the middle of it
        writer.put(said(1))

    assert writer.flush(WAIT_S)
    assert len(out.getvalue().splitlines()) == 1


@pytest.mark.parametrize("length", [200, 3000, 20_000])
def test_lines_of_several_processes_in_one_pipe_are_never_mixed(length: int) -> None:
    code = """
import sys
from llmproxy_server import log_writer
from llmproxy_server.log_line import Entry, JsonLines
from llmproxy_server.log_output import Output
from llmproxy_server.log_writer import LineWriter
who, length = sys.argv[1], int(sys.argv[2])
output = Output(sys.stderr)
output.long_lines = length > 4000
writer = LineWriter(output, JsonLines(max_content_bytes=length))
sys.stdin.read(1)
for n in range(300):
    writer.put(Entry(1.0, who, 20, "m", {"n": n}, content=lambda: {"text": who * length}))
assert writer.flush(60)
"""
    reader, descriptor = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, who, str(length)], stdin=subprocess.PIPE, stderr=descriptor, text=True
        )
        for who in "abcd"
    ]
    os.close(descriptor)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.close()
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    for process in processes:
        assert process.wait(60) == 0

    lines = [json.loads(line) for line in data.splitlines()]
    assert len(lines) == 4 * 300
    assert all(set(line["text"]) <= {line["logger"], "…"} for line in lines)
    if length > PIPE_BYTES:
        assert max(map(len, data.splitlines())) > PIPE_BYTES


def test_a_writer_that_stopped_in_its_turn_does_not_silence_the_others() -> None:
    """It waits for its turn, but not for ever."""
    code = """
import fcntl, sys
fcntl.lockf(sys.stderr.fileno(), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
    pipe = Pipe()
    output = Output(pipe.stream)
    output.long_lines = True
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=pipe.stream, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        pipe.read()
        assert output.write([b'{"n":1}\n']) == 1
        holder.communicate(timeout=WAIT_S)

    output.close()
    assert pipe.lines() == [{"n": 1}]
