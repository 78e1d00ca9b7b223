"""The machine under the measurements: cores, processes, how fast a core is just now, and its description."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

REFERENCE_US = 1000.0
"""CPU figures are in microseconds of a core that does the piece of work in `Speed` in this time."""


@attrs.frozen
class Cores:
    """The upstream and the load share one core, the system under test has the other."""

    load: int
    proxy: int

    @classmethod
    def of(cls, text: str | None) -> Cores:
        """From `LOAD,PROXY`; None: the first and the last core that this process may use."""
        allowed = os.sched_getaffinity(0)
        load, proxy = (int(part) for part in text.split(",")) if text else (min(allowed), max(allowed))
        return cls(load, proxy)


class Speed(threading.Thread):
    """
    Times a fixed piece of work on a core, ten times a second, while something is measured there.

    CPU seconds of the same work vary twofold on a shared virtual machine, which has no counters of instructions
    either. What is measured, divided by what the piece of work took meanwhile, varies by some percent.
    """

    def __init__(self, core: int) -> None:
        super().__init__(daemon=True)
        self._core = core
        self._samples_us: list[float] = []
        self._halt = threading.Event()
        self.start()

    def run(self) -> None:
        os.sched_setaffinity(0, {self._core})  # of this thread alone
        while True:
            began, total = time.thread_time(), 0
            for number in range(9000):
                total += number * number % 7
            self._samples_us.append((time.thread_time() - began) * 1e6)
            if self._halt.wait(0.1):
                return

    def stop(self) -> float:
        """The median of what the piece of work took, in microseconds."""
        self._halt.set()
        self.join()
        return statistics.median(self._samples_us)


def tree(pid: int) -> Iterator[int]:
    """A process and all below it; none when it has ended."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(children).split():
            yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """User and system time that a process and those below it have used."""
    ticks = 0
    for each in tree(pid):
        fields = _read(Path(f"/proc/{each}/stat")).rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Resident memory of a process and those below it; pages that they share count once (PSS)."""
    texts = [_read(Path(f"/proc/{each}/smaps_rollup")) for each in tree(pid)]
    kilobytes = sum(int(kb) for text in texts for kb in re.findall(r"^Pss: +(\d+)", text, re.MULTILINE))
    return round(kilobytes / 1024, 2)


def busy_s() -> dict[int, float]:
    """Seconds that each core was busy since the machine began."""
    rows = re.findall(r"^cpu(\d+) (.+)$", _read(Path("/proc/stat")), re.MULTILINE)
    found = {}
    for core, fields in rows:
        ticks = [int(field) for field in fields.split()[:8]]
        found[int(core)] = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return found


def described() -> dict[str, str]:
    """What a reader of figures must know of the machine and of the code."""
    model = re.search(r"^model name\s*: (.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="(.+)"$', _read(Path("/etc/os-release")), re.MULTILINE)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}",
        "system": f"{system[1] if system else platform.system()}, Linux {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
    }


def _commit() -> str:
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


def _read(path: Path) -> str:
    """A file of /proc; empty when its process has ended."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
