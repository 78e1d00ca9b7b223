"""Work that may block for ever holds up nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from llmproxy_server.aside import aside


async def test_it_gives_what_the_work_gives_from_another_thread() -> None:
    assert await aside(threading.get_ident, timeout_s=20) != threading.get_ident()


async def test_it_raises_what_the_work_raises() -> None:
    def fail() -> None:
        raise ZeroDivisionError("told")

    with pytest.raises(ZeroDivisionError, match="told"):
        await aside(fail, timeout_s=20)


async def test_work_that_takes_too_long_is_given_up_and_may_end_later() -> None:
    go, over = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(20)
        over.set()

    with pytest.raises(TimeoutError):
        await aside(work, timeout_s=0.01)
    go.set()
    assert await asyncio.to_thread(over.wait, 20)


def test_work_that_never_ends_does_not_keep_the_process() -> None:
    code = """
import asyncio, threading
from llmproxy_server.aside import aside
async def main():
    waiting = asyncio.ensure_future(aside(threading.Event().wait, timeout_s=600))
    await asyncio.sleep(0)
    waiting.cancel()
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
