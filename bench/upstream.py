"""The C programs of the bench: the upstream that answers, and the client that reads streams."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from bench.machine import Cores

HERE = Path(__file__).parent
COMPILERS = ("cc", "gcc", "clang")


class Missing(Exception):
    """A program that the bench needs is not there; says which package has it."""


def need(*names: str, package: str) -> str:
    """The path of the first of *names* that is installed."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise Missing(f"{names[0]} is not installed: apt install {package}")


def compiled(folder: Path, name: str) -> Path:
    """The program of `bench/NAME.c`, built into *folder* unless it is there."""
    program = folder / name
    if not program.exists():
        compiler = need(*COMPILERS, package="gcc libc6-dev")
        subprocess.run([compiler, "-O2", "-w", "-o", str(program), str(HERE / f"{name}.c")], check=True)
    return program


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], limit_s: float = 10) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        pause(0.01)
    raise RuntimeError(f"{process.args!r} does not listen at port {port}")


def pause(seconds: float) -> None:
    """Let time pass: what is measured here is another process, and there is no event to wait for."""
    time.sleep(seconds)  # noqa: TID251


@attrs.frozen
class Rig:
    """What all systems of a run are measured with."""

    folder: Path
    """For what is built and written; it goes when the run ends."""
    cores: Cores
    upstream_port: int

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"

    def pace(self, chunks: int, delay_us: int) -> None:
        """How streams that begin from now on run: *chunks* events, *delay_us* between two of them."""
        url = f"{self.upstream}/control?chunks={chunks}&delay_us={delay_us}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            answer.read()


@contextmanager
def rig(folder: Path, cores: Cores) -> Iterator[Rig]:
    """Build the programs and start the upstream. Missing when there is no compiler."""
    compiled(folder, "streamload")
    port = free_port()
    command = ["taskset", "-c", str(cores.load), str(compiled(folder, "upstream")), str(port)]
    with ended(subprocess.Popen(command)) as process:
        wait_for(port, process)
        yield Rig(folder, cores, port)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """At the end of the block *process* is asked to stop, and after ten seconds made to."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
