"""Background work has an owner: it is referenced, its errors are seen, and it is over when the owner says so."""

import asyncio
import gc
import logging

import pytest

from llmproxy_core import Tasks

SOON_S = 5  # far longer than anything here takes


async def _over(task: "asyncio.Task[object]") -> None:
    await asyncio.wait([task], timeout=SOON_S)
    await asyncio.sleep(0)  # the task's callbacks run in the turn after it


async def test_a_task_runs_under_its_name_and_gives_its_result() -> None:
    async def work() -> str:
        return "done"

    task = Tasks().start(work(), name="work")

    assert await asyncio.wait_for(task, SOON_S) == "done"
    assert task.get_name() == "work"


async def test_a_task_is_counted_until_it_ends() -> None:
    tasks, go_on = Tasks(), asyncio.Event()

    task = tasks.start(go_on.wait(), name="work")
    running = len(tasks)
    go_on.set()
    await _over(task)

    assert (running, len(tasks)) == (1, 0)


async def test_a_task_nobody_else_refers_to_is_not_collected() -> None:
    tasks, go_on, done = Tasks(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    _ = tasks.start(work(), name="work")
    await asyncio.sleep(0)
    gc.collect()
    go_on.set()

    await asyncio.wait_for(done.wait(), SOON_S)


async def test_an_error_is_logged_once_with_the_name_of_the_task(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ZeroDivisionError("a bug")

    task = Tasks().start(work(), name="settle")
    await _over(task)

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "background task settle failed")
    ]
    assert "ZeroDivisionError: a bug" in caplog.text


async def test_a_cancelled_task_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    task = tasks.start(asyncio.Event().wait(), name="work")

    task.cancel()
    await _over(task)

    assert not caplog.records
    assert len(tasks) == 0


async def test_draining_waits_for_what_runs() -> None:
    tasks, done = Tasks(), list[str]()

    async def work() -> None:
        await asyncio.sleep(0)
        done.append("work")

    _ = tasks.start(work(), name="work")
    await asyncio.wait_for(tasks.drain(SOON_S), SOON_S)

    assert done == ["work"]
    assert len(tasks) == 0


async def test_draining_waits_for_what_running_tasks_start() -> None:
    """The end of a background exchange starts its async callbacks: a settlement must not be cancelled at once."""
    tasks, done = Tasks(), list[str]()

    async def settle() -> None:
        for _ in range(10):  # longer than the turn in which the end of its starter is noticed
            await asyncio.sleep(0)
        done.append("settled")

    async def work() -> None:
        await asyncio.sleep(0)
        _ = tasks.start(settle(), name="settle")

    _ = tasks.start(work(), name="work")
    await asyncio.wait_for(tasks.drain(SOON_S), SOON_S)

    assert done == ["settled"]
    assert len(tasks) == 0


async def test_draining_cancels_what_takes_longer_and_waits_for_its_end() -> None:
    tasks, ends = Tasks(), list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append("over")

    _ = tasks.start(work(), name="work")
    await asyncio.sleep(0)  # it must have begun to have a `finally`
    await asyncio.wait_for(tasks.drain(0.01), SOON_S)

    assert ends == ["over"]
    assert len(tasks) == 0


async def test_what_a_cancelled_task_starts_as_it_ends_gets_its_time() -> None:
    """A background exchange that is cancelled settles in a task that its end starts."""
    tasks, done = Tasks(), list[str]()

    async def settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        done.append("settled")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            _ = tasks.start(settle(), name="settle")

    _ = tasks.start(work(), name="work")
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.drain(0.1), SOON_S)

    assert done == ["settled"]
    assert len(tasks) == 0


async def test_nothing_is_left_running_whatever_cancelled_tasks_start() -> None:
    tasks = Tasks()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            _ = tasks.start(again(), name="last wish")

    async def again() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            _ = tasks.start(asyncio.Event().wait(), name="very last wish")

    _ = tasks.start(work(), name="work")
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.drain(0.01), SOON_S)

    assert len(tasks) == 0


async def test_draining_nothing_returns() -> None:
    await asyncio.wait_for(Tasks().drain(SOON_S), SOON_S)


async def test_what_ended_in_this_very_turn_is_drained() -> None:
    """Its end is not told of yet; to ask again and again would leave no turn for that."""
    tasks, told = Tasks(), asyncio.Event()

    async def work() -> None:
        told.set()

    _ = tasks.start(work(), name="work")
    await told.wait()
    await tasks.drain(0)

    assert len(tasks) == 0


async def test_a_task_that_would_end_the_process_is_a_bug_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio would end the loop by it."""

    async def work() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    tasks = Tasks()
    task = tasks.start(work(), name="sweep")
    await _over(task)

    assert "background task sweep failed" in caplog.text
    assert len(tasks) == 0


async def test_a_task_that_is_cancelled_before_it_began_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    async def work() -> None:
        raise AssertionError

    task = Tasks().start(work(), name="work")
    task.cancel()
    await _over(task)
    del task
    gc.collect()

    assert [str(it.message) for it in recwarn] == []
