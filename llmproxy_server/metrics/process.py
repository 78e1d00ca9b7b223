"""What a process says of itself: how much it holds, and what it has done to get there."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from llmproxy_server.admission import REASONS, Admission
from llmproxy_server.metrics.meter import Sampler
from llmproxy_server.metrics.values import Family

_RESIDENT = Family("process_resident_memory_bytes", "gauge", "Resident memory of all processes of the proxy.")
_OPEN_FDS = Family("process_open_fds", "gauge", "Open file descriptors of all processes of the proxy.")
_CPU = Family("process_cpu_seconds_total", "counter", "User and system time of all processes that served.")
_START = Family("process_start_time_seconds", "latest", "When the process that began last did so, since the epoch.")
_CONNECTIONS = Family("llmproxy_open_connections", "gauge", "Connections of clients that are open.")
_IN_FLIGHT = Family("llmproxy_in_flight_requests", "gauge", "Requests that hold a place: max_in_flight bounds them.")
_LIMIT = Family("llmproxy_in_flight_limit", "gauge", "Requests that may hold a place now: adaptive_limit lowers it.")
_QUEUED = Family("llmproxy_queued", "gauge", "Requests that wait for a place: max_queued bounds them.")
_SHED = Family("llmproxy_shed_total", "counter", "Requests answered 503 since a bound of the process was reached.")
_BUFFERED = Family(
    "llmproxy_buffered_request_bytes", "gauge", "Request bodies in memory: max_buffered_bytes bounds them."
)
_LINES = Family("llmproxy_log_lines_dropped_total", "counter", "Lines of the log that were not written.")
_SPANS = Family("llmproxy_spans_dropped_total", "counter", "Spans of traces that were not exported.")

Read = Callable[[], float]


def watch_process(sampler: Sampler, proc: Path = Path("/proc/self"), now: Callable[[], float] = time.time) -> None:
    """What the operating system knows of this process; where there is no /proc, only the time that it took."""
    began = now()
    sampler.counter(_CPU, time.process_time)
    sampler.gauge(_START, lambda: began)
    if (proc / "statm").exists():
        sampler.gauge(_RESIDENT, lambda: int((proc / "statm").read_bytes().split()[1]) * mmap.PAGESIZE)
        sampler.gauge(_OPEN_FDS, lambda: sum(1 for _ in (proc / "fd").iterdir()))


def watch_server(sampler: Sampler, *, connections: Read, admission: Admission) -> None:
    """What the server of this process holds, and whom it refused since it holds too much."""
    sampler.gauge(_CONNECTIONS, connections)
    sampler.gauge(_IN_FLIGHT, lambda: admission.in_flight)
    sampler.gauge(_LIMIT, lambda: admission.limit)
    sampler.gauge(_QUEUED, lambda: admission.queue.size)
    sampler.gauge(_BUFFERED, lambda: admission.buffered_bytes)
    for reason in REASONS:
        sampler.counter(_SHED, partial(admission.shed.__getitem__, reason), reason=reason)


def watch_log(sampler: Sampler, dropped: Read) -> None:
    """*dropped*: how many lines this process has lost so far."""
    sampler.counter(_LINES, dropped)


def watch_spans(sampler: Sampler, dropped: Read) -> None:
    """*dropped*: how many spans this process has lost so far."""
    sampler.counter(_SPANS, dropped)
