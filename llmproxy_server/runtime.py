"""What a process that serves chooses of its interpreter: the event loop, turns of threads, and how memory is kept."""

from __future__ import annotations

import asyncio
import gc
import linecache
import sys
from collections.abc import Callable

_LARGE_BYTES = 3 << 20
_LOOK_S = 0.25
_YOUNG = 5_000
"""
Objects that are made before the young ones are looked at: those of some thirty calls. With 700 it is a twentieth of the
time of a call; with many more, what hangs together in a circle holds too much memory until then.
"""
_TURN_S = 0.0005
"""A tenth of Python's own. With a fiftieth calls are no faster any more."""
_SELDOM = 20
"""Collections of the young ones before older ones are looked at, while it loads: a usual start has not as many."""


def load_quickly() -> None:
    """
    To be called first by a process that is about to serve; until `settle_memory`.

    Hardly anything that is made while it loads goes again, so it is looked at once and not three times: that is a
    fifteenth of the time of a start.
    """
    gc.set_threshold(_YOUNG, _SELDOM, _SELDOM)


def settle_memory_once(loaded: Callable[[], bool]) -> None:
    """
    `settle_memory` as soon as all is *loaded*, which is looked at now and then. In the event loop.

    Before that, what loading needs for a moment would be kept as well: with the price list 25 MB.
    """
    if loaded():
        settle_memory()
    else:
        asyncio.get_running_loop().call_later(_LOOK_S, settle_memory_once, loaded)


def settle_memory() -> None:
    """
    To be called once, when everything is loaded that stays.

    Collections need not look at that again. And glibc learns to keep what a large body needs: a block that it has given
    back once raises the size from which blocks are (mallopt(3), M_MMAP_THRESHOLD); else each page of each copy of a
    body of a megabyte is faulted in anew, which costs more than reading it. What attrs has written stands among the
    lines of source that are kept for tracebacks, and for debuggers: a megabyte. Those of files are read again.
    """
    bytes(_LARGE_BYTES)
    linecache.clearcache()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)


def take_short_turns() -> None:
    """
    To be called by a process that serves: its threads, which make spans and log lines, hold the event loop up less.

    While one of them works, the loop waits that long for the interpreter, each time that it comes back from a socket.
    """
    sys.setswitchinterval(_TURN_S)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's; None, for the standard loop, on Windows, which has no uvloop. ImportError where it should be there."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
