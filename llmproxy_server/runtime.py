"""What a process that serves chooses of its interpreter: the event loop, and how its memory is kept."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

_LARGE_BYTES = 3 << 20
_LOOK_S = 0.25
_YOUNG = 5_000
"""
Objects that are made before the young ones are looked at: those of some thirty calls. With 700 it is a twentieth of the
time of a call; with many more, what hangs together in a circle holds too much memory until then.
"""


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
    body of a megabyte is faulted in anew, which costs more than reading it.
    """
    bytes(_LARGE_BYTES)
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:  # pragma: no cover - Windows
        return None
    return uvloop.new_event_loop
