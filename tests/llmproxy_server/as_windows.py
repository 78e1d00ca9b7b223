"""
Run `llmproxy ARGUMENTS` on a Python that lacks what it lacks on Windows: `python -m tests.llmproxy_server.as_windows`.

Not Windows, but near enough to find what needs more than there is: no uvloop, an event loop without readers and signal
handlers (`asyncio.ProactorEventLoop`, "Platform Support" in asyncio's documentation), no modules, signals and calls of
POSIX. Libraries are loaded before: they would look for what only Windows has.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import select
import signal
import socket
import sys
from types import ModuleType
from typing import Any, NoReturn

LOADED = (
    "aiohttp.web",
    "cachetools",
    "cattrs",
    "click.shell_completion",
    "ctypes",
    "dotenv",
    "httptools",
    "mmap",
    "msgspec",
    "multiprocessing",
    "pluggy",
    "prometheus_client",
    "structlog",
    "subprocess",
    "tomli",
    "watchfiles",
)
MODULES = ("uvloop", "aiodns", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
SIGNALS = "ALRM BUS CHLD CONT HUP IO KILL PIPE QUIT STOP TSTP TTIN TTOU URG USR1 USR2 WINCH XCPU"
NAMES: dict[ModuleType, str] = {
    signal: "alarm pause pthread_kill pthread_sigmask setitimer siginterrupt sigwait SIG_BLOCK SIG_SETMASK SIG_UNBLOCK",
    os: "chown fchmod fchown fork forkpty getegid geteuid getgid getloadavg getuid killpg mkfifo nice pread pwrite "
    "register_at_fork sched_getaffinity sendfile setsid sysconf uname "
    "O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK",
    socket: "SO_REUSEPORT TCP_USER_TIMEOUT recv_fds send_fds",
    select: "epoll poll",
}


LOOP = "add_reader add_writer add_signal_handler create_unix_connection create_unix_server"


class Loop(asyncio.SelectorEventLoop):
    """Has what `asyncio.ProactorEventLoop` has."""


def lacks(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError


def take_away() -> None:
    """What this Python has and Windows has not."""
    for name in LOOP.split():
        setattr(Loop, name, lacks)
    asyncio.events.new_event_loop = Loop
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # so that its import fails
    names = NAMES | {signal: f"{NAMES[signal]} {' '.join(f'SIG{it}' for it in SIGNALS.split())}"}
    for module, missing in names.items():
        for name in missing.split():
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "win32"


if __name__ == "__main__":
    for each in LOADED:
        importlib.import_module(each)
    take_away()
    from llmproxy_server.cli import main

    sys.exit(main())
