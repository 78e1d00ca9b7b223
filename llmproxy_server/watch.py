"""Noticing that files have changed, however they were: written in place, renamed over, or behind a swapped link."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from llmproxy_core.tasks import Tasks
from llmproxy_server.log_events import get_logger
from llmproxy_server.source import Look, look

_log = get_logger()
QUIET_MS = 100
"""Changes that follow each other so closely are one."""
LONGEST_MS = 1600
"""What changes all the time is looked at every so often all the same."""
LOOK_MS = 1000
"""How often the files are looked at when nothing was heard: of some file systems nothing ever is."""
GONE_S = 1.0
"""How long a file that has vanished may take to come back before that counts as a change."""
_AGAIN_S = 0.05
_RETRY_S = 1.0


class Watch:
    """
    Calls *changed* after a file of *files* is another one, once for changes that come together.

    The folders are watched, not the files: what is renamed over a file is another file. A file that is not there is
    waited for. *changed* is not called again before it has ended.
    """

    def __init__(
        self,
        files: Sequence[Path],
        changed: Callable[[], Awaitable[object]],
        tasks: Tasks,
        *,
        read: Callable[[], Look] | None = None,
    ) -> None:
        """*read* gives how the files were when they were read last, for `start`; None: as they are then."""
        self._files = tuple(files)
        self._read = read
        self._changed = changed
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._seen: Look = {}
        self._deaf = False

    def start(self) -> None:
        """Whatever has changed since they were read is a change, too. Unless it has been started."""
        if self._task is None:
            self._seen = look(self._files) if self._read is None else self._read()
            self._task = self._tasks.start(self._run(), name="watch")

    def stop(self) -> None:
        """Unless it is off. A call of *changed* that has begun goes on, if it is what called this."""
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _run(self) -> None:
        me = self._task
        while self._task is me:
            try:
                await self._follow(me)
            except OSError as error:  # a folder is gone, or the system has no more watches to give
                if not self._deaf:
                    _log.warning("changes of files are not heard of, but looked for each second", reason=str(error))
                self._deaf = True
                await asyncio.sleep(_RETRY_S)
                await self._compare()

    async def _follow(self, me: asyncio.Task[None] | None) -> None:
        """Listen to the folders for as long as these are the ones to listen to."""
        from watchfiles import awatch  # only where it is asked for

        folders = self._folders()
        async for _ in awatch(
            *folders,
            watch_filter=None,
            debounce=LONGEST_MS,
            step=QUIET_MS,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            recursive=False,
        ):
            await self._compare()
            if self._task is not me or self._folders() != folders:
                return

    async def _compare(self) -> None:
        if look(self._files) == self._seen:
            return
        due_s = asyncio.get_running_loop().time() + GONE_S
        while any(self._was(path) and not path.exists() for path in self._files):
            if asyncio.get_running_loop().time() > due_s:
                break
            await asyncio.sleep(_AGAIN_S)
        self._seen = look(self._files)
        await self._changed()

    def _was(self, path: Path) -> bool:
        """Whether *path* was there when it was looked at last."""
        return self._seen.get(path) is not None

    def _folders(self) -> list[Path]:
        """Those that hold the files, and, of links, what they lead to."""
        found = {
            folder for path in self._files for folder in (path.absolute().parent, Path(os.path.realpath(path)).parent)
        }
        return sorted(folder for folder in found if folder.is_dir())
