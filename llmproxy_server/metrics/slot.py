"""
The numbers of a worker, in two files that outlive it and that every other worker reads.

`SLOT.values` is the array, mapped; `SLOT.series` says what stands where, a line for each series, and only grows. A
series is written down before anything is added to its cells, and a line counts once its line feed is there, so that
a process may be killed at any moment: what it had counted is there, and who takes its slot goes on with it.
"""

from __future__ import annotations

import errno
import mmap
import re
from pathlib import Path

import msgspec

from llmproxy_server.metrics.values import CELLS, Family, Kind, Labels, Series, Slot, Values, zero

_SLOT = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)


class _Line(msgspec.Struct, array_like=True):
    name: str
    kind: Kind
    doc: str
    buckets: tuple[float, ...]
    labels: Labels
    index: int


def open_slot(directory: Path, slot: str, cells: int = CELLS) -> Values:
    """
    The numbers of the worker *slot*: those of its predecessor go on, its gauges begin at 0.

    No other process may have the slot at that time. OSError when the files cannot be made.
    """
    if not _SLOT.fullmatch(slot):
        raise ValueError(f"not a slot: {slot!r}")
    values, log = directory / f"{slot}.values", directory / f"{slot}.series"
    if not values.exists() or values.stat().st_size != cells * 8:
        log.unlink(missing_ok=True)  # first: without it nobody reads the other
        _make(values, cells * 8)
    known, size = _read(log, 0)
    with log.open("ab") as file:
        file.truncate(size)  # a line that was never finished
    mapped = memoryview(_mapped(values, mmap.ACCESS_WRITE)).cast("d")
    for it in known:
        if it.family.kind in ("gauge", "latest"):
            zero(mapped, it.index, it.end)
    return Values(mapped, known, _File(log))


def zero_gauges(directory: Path, slot: str) -> None:
    """The worker that had *slot* is dead: what it held is not held any more. Its counters stay."""
    open_slot(directory, slot)


def _make(path: Path, size: int) -> None:
    """A file of zeros, with its blocks: writing to a mapped one for which the disk has no room kills the process."""
    made = path.with_suffix(".new")
    made.write_bytes(bytes(size))
    made.replace(path)  # whoever has the old one mapped keeps it


def _mapped(path: Path, access: int) -> mmap.mmap:
    with path.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


def _read(path: Path, start: int) -> tuple[list[Series], int]:
    """The series from byte *start* of a log on, and where its last whole and right line ends."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return [], start
    found: list[Series] = []
    for line in data.splitlines(keepends=True):
        try:
            it = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError:
            break
        if not line.endswith(b"\n"):
            break
        found.append(Series(Family(it.name, it.kind, it.doc, it.buckets), it.labels, it.index))
        start += len(line)
    return found, start


class _File:
    """See SeriesLog. Opened for each line: there are few."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, series: Series) -> None:
        family = series.family
        line = _Line(family.name, family.kind, family.doc, family.buckets, series.labels, series.index)
        data = msgspec.json.encode(line) + b"\n"
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            if file.write(data) != len(data):
                file.truncate(before)  # or what comes next would be a part of this line
                raise OSError(errno.ENOSPC, "the line was not written whole")


class Slots:
    """Reads the slots of all workers. What was read of a log is kept: it only grows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[str, _Reader] = {}

    def read(self) -> list[Slot]:
        """What all have counted so far; of a slot that is being made: nothing yet."""
        found = []
        for path in sorted(self._directory.glob("*.series")):
            reader = self._read.get(path.stem)
            if reader is None or not reader.is_of(path):
                try:
                    reader = _Reader(path)
                except (OSError, ValueError):  # the other file is not there yet, or empty
                    continue
                self._read[path.stem] = reader
            found.append(reader.slot())
        return found


class _Reader:
    def __init__(self, log: Path) -> None:
        self._log = log
        self._file = log.stat().st_ino
        self._cells = memoryview(_mapped(log.with_suffix(".values"), mmap.ACCESS_READ)).cast("d")
        self._series: list[Series] = []
        self._offset = 0

    def is_of(self, log: Path) -> bool:
        """Whether it reads that very file, and not one that was in its place."""
        try:
            return log.stat().st_ino == self._file
        except FileNotFoundError:
            return False

    def slot(self) -> Slot:
        more, self._offset = _read(self._log, self._offset)
        self._series += (it for it in more if it.end <= len(self._cells))
        return Slot(self._series, self._cells)
