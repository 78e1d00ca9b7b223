"""What is measured of a running system; each gives a row of figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import attrs

from bench.machine import REFERENCE_US, Speed, busy_s
from bench.system import BIG, Row, Target, busy_share, until_ready
from bench.upstream import pause

PACE_US = 20_000
"""Between two events of a paced stream: 50 events a second."""


@attrs.frozen
class Scale:
    """How much is done; the defaults are those of the published figures."""

    seconds: float = 3
    """Of each measurement of calls."""
    streams: int = 200
    chunks: int = 100
    most_streams: int = 6400
    """Where the search for the most streams stops."""
    open_streams: int = 1000
    calls: int = 20_000
    """That memory has to stay flat over."""
    warm_s: float = 2
    """Of load before the first measurement: what is made once is made."""
    rest_s: float = 1.5
    """After the start, before memory at rest is read: what loads in the background has come."""


FULL = Scale()
TINY = Scale(seconds=1, streams=10, chunks=10, most_streams=50, open_streams=20, calls=200, warm_s=0, rest_s=0.2)


def metered(target: Target, load: Callable[[], Row], unit: str) -> Row:
    """
    What *load* gives, and what the system used meanwhile, per *unit* of it.

    `cpu_us`: CPU time. `cpu_norm`: the same on the reference core, see `Speed`; this is the one to compare.
    `proxy_share`: CPU over time, near 1 when the system was the bottleneck. `load_core`: how busy the other
    core was.
    """
    cores, cpu_s, began_s = busy_s(), target.cpu_s, time.monotonic()
    speed = Speed(target.rig.cores.proxy)
    row = load()
    seconds = time.monotonic() - began_s
    core_us = speed.stop()
    if not row[unit]:
        raise RuntimeError(f"nothing was answered: {row.get('why')}")
    row |= {"core_us": round(core_us), "load_core": busy_share(cores, seconds, target.rig.cores.load)}
    if target.pid:
        used_s = target.cpu_s - cpu_s
        each_us = used_s * 1e6 / max(1.0, float(row[unit]))
        row |= {"cpu_us": round(each_us, 2), "cpu_norm": round(each_us * REFERENCE_US / core_us, 2)}
        row |= {"proxy_share": round(used_s / seconds, 2), "memory_mb": target.memory_mb}
    return row


def start(target: Target, scale: Scale) -> Row:
    """From its start to its first answer, and what it holds when it has come to rest."""
    row: Row = {"cold_s": round(target.cold_s, 3), "cold_cpu_s": round(target.cold_cpu_s, 2)}
    if target.system.ready:
        row["ready_s"] = round(until_ready(target), 3)
    pause(scale.rest_s)
    return row | {"idle_mb": target.memory_mb}


def one_call(target: Target, scale: Scale) -> Row:
    return metered(target, lambda: target.calls(1, scale.seconds), "requests")


def calls(target: Target, scale: Scale) -> Row:
    return metered(target, lambda: target.calls(32, scale.seconds), "requests")


def big_call(target: Target, scale: Scale) -> Row:
    return metered(target, lambda: target.calls(1, scale.seconds, BIG), "requests")


def paced(target: Target, scale: Scale) -> Row:
    """Two rounds of streams whose starts are spread over two seconds."""
    return metered(target, lambda: _paced(target, scale.streams, scale, rounds=2), "chunks")


def _paced(target: Target, count: int, scale: Scale, *, rounds: int = 1, limit_s: int = 40) -> Row:
    spread_us = min(2_000_000, scale.chunks * PACE_US)
    return target.streams(
        count, rounds=rounds, chunks=scale.chunks, delay_us=PACE_US, spread_us=spread_us, limit_s=limit_s
    )


def burst(target: Target, scale: Scale) -> Row:
    """32 streams of 200 events that the upstream does not pace, again and again."""
    probe = target.streams(32, chunks=200)
    a_round_s = 32 * 200 / max(1.0, float(probe["chunks_per_s"]))
    rounds = max(1, min(200, int(scale.seconds / a_round_s)))
    return metered(target, lambda: target.streams(32, rounds=rounds, chunks=200), "chunks")


def most_streams(target: Target, scale: Scale) -> Row:
    """The most paced streams at once of which each is right, and 99 of 100 events come within 20 ms."""

    def holds(count: int) -> bool:
        for _ in range(2):  # the better of two: a neighbour on the machine spoils one
            row = _paced(target, count, scale, limit_s=15)
            if row["streams_ok"] == count and float(row["lag_us_p99"]) < PACE_US:
                return True
        return False

    held, count, lost = 0, min(50, scale.most_streams), 0
    while count <= scale.most_streams and not lost:
        if holds(count):
            held, count = count, count * 2
        else:
            lost = count
    while lost - held > max(10, held * 0.1):
        middle = (held + lost) // 2
        held, lost = (middle, lost) if holds(middle) else (held, middle)
    return {"streams_held": held}


def open_streams(target: Target, scale: Scale) -> Row:
    """What each open stream holds in memory: what many hold more than few do, at ten events a second."""
    few, many = scale.open_streams // 5, scale.open_streams
    few_mb, _ = _peak_mb(target, few)
    many_mb, row = _peak_mb(target, many)
    return row | {"stream_kb": round((many_mb - few_mb) * 1024 / (many - few), 1)}


def _peak_mb(target: Target, streams: int) -> tuple[float, Row]:
    peak_mb, over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak_mb
        while not over.wait(0.2):
            peak_mb = max(peak_mb, target.memory_mb)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        row = target.streams(streams, chunks=40, delay_us=100_000, spread_us=1_000_000)
    finally:
        over.set()
        watcher.join()
    return peak_mb, row


def leak(target: Target, scale: Scale) -> Row:
    """Memory before and after many calls, for a minute and a half at most."""
    before_mb, done, until_s = target.memory_mb, 0.0, time.monotonic() + 90
    while done < scale.calls and time.monotonic() < until_s:
        done += float(target.calls(32, scale.seconds)["requests"])
    after_mb = target.memory_mb
    return {"requests": done, "before_mb": before_mb, "after_mb": after_mb, "growth_mb": round(after_mb - before_mb, 2)}


Measure = Callable[[Target, Scale], Row]
MEASURES: Mapping[str, Measure] = {
    "start": start,
    "ns1": one_call,
    "ns32": calls,
    "big": big_call,
    "st200": paced,
    "burst": burst,
    "maxk": most_streams,
    "open": open_streams,
    "leak": leak,
}
"""Those from `maxk` on are long, and made in the first round only."""
ONCE = frozenset({"maxk", "open", "leak"})
