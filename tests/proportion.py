"""Whether work is in proportion to what there is to do: by ratios of processor time, never by a time itself."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

SMALL, LARGE = 150, 1_200
"""
Sizes that are compared.

Work in proportion takes 8 times as long for the larger; with a search through all for each, in C or in Python, up to 64
times.
"""
MOST = 14
"""The most of that which passes: caches and the allocator make larger things a little dearer."""
_TRIES = 8


def times_as_long(small: Callable[[], object], large: Callable[[], object]) -> float:
    """
    How many times as long *large* takes as *small*; where it is too much, the best of several tries of both.

    Time of this thread alone counts, without the collector of garbage, which looks at what others left.
    """
    least, most = _seconds(small), _seconds(large)
    for _ in range(_TRIES - 1):
        if most <= MOST * least:
            break
        least, most = min(least, _seconds(small)), min(most, _seconds(large))
    return most / least


def _seconds(run: Callable[[], object]) -> float:
    was_on = gc.isenabled()
    gc.disable()
    try:
        begun = time.thread_time()
        run()
        return time.thread_time() - begun
    finally:
        if was_on:
            gc.enable()
