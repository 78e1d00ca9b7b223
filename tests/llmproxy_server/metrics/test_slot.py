"""The files of workers: they outlive their process, whenever that dies, and any other one reads them."""

import asyncio
import signal
import sys
import threading
from pathlib import Path

import pytest

from llmproxy_server.metrics.slot import Slots, open_slot
from llmproxy_server.metrics.snapshot import Snapshot, added_up
from llmproxy_server.metrics.values import DROPPED, SCRATCH, Family, labels_of

CALLS = Family("calls_total", "counter", "Calls.")
ACTIVE = Family("active", "gauge", "Calls under way.")
SEEN = Family("seen_seconds", "latest", "When.")
TIMES = Family("times_seconds", "histogram", "Times.", (0.1, 1.0))
WAIT_S = 60.0

COUNTING = """
import sys
from pathlib import Path
from llmproxy_server.metrics.slot import open_slot
from llmproxy_server.metrics.values import Family, labels_of
calls, active = Family("calls_total", "counter", "Calls."), Family("active", "gauge", "Calls under way.")
values = open_slot(Path(sys.argv[1]), sys.argv[2])
index = values.place(active)
values.cells[index] = 1
print("ready", flush=True)
number = 0
while True:
    place = values.place(calls, labels_of(number=str(number % 500)))
    values.cells[place] += 1
    number += 1
    if len(sys.argv) > 3 and number == int(sys.argv[3]):
        break
print("done", flush=True)
sys.stdin.read()
"""


def read(directory: Path) -> Snapshot:
    return added_up(Slots(directory).read())


async def counting(directory: Path, slot: str, *most: str) -> asyncio.subprocess.Process:
    """A process that counts in *slot*, and has begun."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", COUNTING, str(directory), slot, *most),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"ready\n"
    return process


async def killed(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    assert await asyncio.wait_for(process.wait(), WAIT_S) == -signal.SIGKILL
    await process.communicate(b"")


def test_a_successor_goes_on_counting_and_begins_its_gauges_at_zero(tmp_path: Path) -> None:
    first = open_slot(tmp_path, "0")
    for family in (CALLS, ACTIVE, SEEN, TIMES):
        first.cells[first.place(family)] = 3

    second = open_slot(tmp_path, "0")
    second.cells[second.place(CALLS)] += 1

    snapshot = read(tmp_path)
    assert [snapshot.of(it.name).cells[()][0] for it in (CALLS, ACTIVE, SEEN, TIMES)] == [4, 0, 0, 3]


def test_slots_are_added_up_and_read_as_they_grow(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    assert slots.read() == []
    one = open_slot(tmp_path, "0")
    one.cells[one.place(CALLS, labels_of(model="a"))] += 1
    assert added_up(slots.read()).of(CALLS.name).value(model="a") == 1

    two = open_slot(tmp_path, "parent", cells=1024)
    two.cells[two.place(CALLS, labels_of(model="a"))] += 2
    one.cells[one.place(CALLS, labels_of(model="b"))] += 5

    total = added_up(slots.read()).of(CALLS.name)
    assert (total.value(model="a"), total.value(model="b")) == (3, 5)


@pytest.mark.parametrize("rest", [b'["half_total","coun', b'["half_total","counter","Half.",[],[],200]', b"\xff\xfe\n"])
def test_a_line_that_was_never_finished_is_no_series(tmp_path: Path, rest: bytes) -> None:
    first = open_slot(tmp_path, "0")
    first.cells[first.place(CALLS)] = 3
    with (tmp_path / "0.series").open("ab") as file:
        file.write(rest)
    assert set(read(tmp_path).totals) == {DROPPED.name, CALLS.name}

    second = open_slot(tmp_path, "0")
    second.cells[second.place(ACTIVE)] = 1

    snapshot = read(tmp_path)
    assert (snapshot.of(CALLS.name).value(), snapshot.of(ACTIVE.name).value()) == (3, 1)


def test_files_of_another_size_are_made_anew(tmp_path: Path) -> None:
    first = open_slot(tmp_path, "0", cells=1024)
    first.cells[first.place(CALLS)] = 3

    second = open_slot(tmp_path, "0", cells=2048)

    assert len(second.cells) == 2048
    assert read(tmp_path).of(CALLS.name).value() == 0
    first.cells[first.place(CALLS)] += 1  # who has the old one goes on, and harms nobody


def test_a_slot_whose_array_is_not_there_yet_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "0.series").touch()
    slots = Slots(tmp_path)
    assert slots.read() == []
    (tmp_path / "0.values").touch()
    assert slots.read() == []

    values = open_slot(tmp_path, "0")
    values.cells[values.place(CALLS)] = 1

    assert added_up(slots.read()).of(CALLS.name).value() == 1


def test_a_series_that_cannot_be_written_down_is_dropped_and_no_call_fails(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    values = open_slot(directory, "0")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()

    index = values.place(CALLS)

    assert index == SCRATCH
    assert values.cells[values.place(DROPPED)] == 1


def test_a_slot_has_a_plain_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a slot"):
        open_slot(tmp_path, "../0")


async def test_two_processes_count_into_one_sum(tmp_path: Path) -> None:
    processes = [await counting(tmp_path, slot, "1000") for slot in ("0", "1")]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"done\n"

    snapshot = read(tmp_path)

    assert set(map(tuple, snapshot.of(CALLS.name).cells.values())) == {(4.0,)}  # 500 series, twice 1,000 counts
    assert snapshot.of(ACTIVE.name).value() == 2
    for process in processes:
        await process.communicate(b"")


@pytest.mark.parametrize("round", range(3))
async def test_a_process_killed_while_it_counts_leaves_all_that_it_had_counted(tmp_path: Path, round: int) -> None:
    process = await counting(tmp_path, "0")
    slots = Slots(tmp_path)
    async with asyncio.timeout(WAIT_S):
        while not added_up(slots.read()).of(CALLS.name).cells:  # noqa: ASYNC110 - a foreign process has no event of ours
            await asyncio.sleep(0)
    await killed(process)

    counts = [cells[0] for cells in read(tmp_path).of(CALLS.name).cells.values()]
    # They were counted one after the other, again and again.
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)
    successor = await counting(tmp_path, "0", "500")
    assert successor.stdout is not None
    assert await asyncio.wait_for(successor.stdout.readline(), WAIT_S) == b"done\n"
    after = added_up(slots.read())
    assert sum(cells[0] for cells in after.of(CALLS.name).cells.values()) == sum(counts) + 500
    assert after.of(ACTIVE.name).value() == 1
    await successor.communicate(b"")


async def test_slots_can_be_read_while_they_are_opened_and_written(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    over = threading.Event()

    def reading() -> None:
        slots = Slots(tmp_path)
        before = 0.0
        try:
            while not over.is_set():
                total = sum(cells[0] for cells in added_up(slots.read()).of(CALLS.name).cells.values())
                assert total >= before, "counters do not fall"
                before = total
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            failures.append(error)

    readers = [threading.Thread(target=reading) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(3):
            processes = [await counting(tmp_path, str(slot)) for slot in range(3)]
            for process in processes:
                await killed(process)
    finally:
        over.set()
        for reader in readers:
            await asyncio.to_thread(reader.join, WAIT_S)
    assert not failures, failures
    assert len(list(tmp_path.iterdir())) == 6
