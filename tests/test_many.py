"""
Very many clients at once: idle ones cost memory and nothing else, slow streams are each right.

`make soak` holds 10,000 idle connections, and 5,000 streams of an event a second on one core.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

from bench.machine import Cores
from bench.ours import ALL_ON, Setting, install_plugin
from bench.system import Target, running
from bench.upstream import rig
from tests.needs import need_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
MANY = [pytest.mark.soak, pytest.mark.timeout(600)]
IDLE_KB = 20
"""What a connection may hold that waits for its next request."""


@contextmanager
def served(folder: Path, setting: Setting) -> Iterator[Target]:
    need_program("gcc", package="gcc libc6-dev")
    need_program("wrk", package="wrk")
    install_plugin(folder)
    ours = attrs.evolve(setting, server="idle_timeout_s = 600\n").system("llmproxy")
    with rig(folder, Cores.of(None)) as built, running(built, attrs.evolve(ours, is_logged=False)) as target:
        yield target


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as we may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=MANY)], ids=["short", "whole"])
@pytest.mark.usefixtures("descriptors")
def test_idle_connections_cost_little_and_disturb_nobody(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path, Setting()) as target, ExitStack() as stack:
        some = [stack.enter_context(asked_once(target)) for _ in range(100)]
        before = target.memory_mb  # no call was made, and none given up: what a first one loads is no connection's

        clients = [*some, *(stack.enter_context(asked_once(target)) for _ in range(count))]

        held_kb = (target.memory_mb - before) * 1024 / count
        began_s = time.monotonic()
        with urllib.request.urlopen(f"{target.url}/health", timeout=5) as answer:
            assert answer.status == 200
        seconds = time.monotonic() - began_s
        assert target.calls(32, 1)["errors"] == 0
        for client in clients[:: max(1, count // 100)]:
            ask(client)
        with capsys.disabled():
            sys.stdout.write(f"\n{count} idle connections: {held_kb:.1f} KB each, /health in {seconds * 1000:.0f} ms\n")
        assert held_kb < IDLE_KB


@contextmanager
def asked_once(target: Target) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", target.port), timeout=20) as client:
        ask(client)
        yield client


def ask(client: socket.socket) -> None:
    client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("count", "chunks", "delay_s"),
    [(200, 5, 0.2), pytest.param(5000, 30, 1.0, marks=MANY)],
    ids=["short", "whole"],
)
@pytest.mark.usefixtures("descriptors")
def test_very_many_slow_streams_are_each_right(
    count: int, chunks: int, delay_s: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path, ALL_ON) as target:
        delay_us = int(delay_s * 1_000_000)
        spread_us = delay_us * max(1, count // 500)  # more at once than that, and the clients cannot connect
        began_s = target.cpu_s

        found = target.streams(count, chunks=chunks, delay_us=delay_us, spread_us=spread_us, limit_s=120)

        with capsys.disabled():
            busy_s = target.cpu_s - began_s
            sys.stdout.write(f"\n{count} streams of {chunks} events: {found}, {busy_s:.1f} s of CPU\n")
        assert found["streams_ok"] == count
        assert found["streams_failed"] == found["unfinished"] == 0
