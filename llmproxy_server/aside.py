"""Work that may block for long, done where it holds up neither the event loop nor the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T], *, timeout_s: float) -> T:
    """
    What *work* gives, or raises, in a thread of its own; TimeoutError when that takes too long.

    Unlike a thread of asyncio's it is waited for no longer, nor at the end of the process: a file on a disk that does
    not answer can block for ever.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            given = work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            tell = partial(found.set_exception, error)
        else:
            tell = partial(found.set_result, given)
        with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(lambda: None if found.done() else tell())

    threading.Thread(target=run, name="llmproxy-aside", daemon=True).start()
    async with asyncio.timeout(timeout_s):
        return await found
