"""How many files and connections the system lets this process have open."""

from __future__ import annotations

from llmproxy_core.config import ServerConfig
from llmproxy_server.log_events import get_logger

_log = get_logger()
_MOST = 1 << 20
"""What we ask for where there is no hard limit: the table of them grows with the highest in use."""
_FOR_THE_REST = 64
"""Listening sockets, the log, the loop's own, and what plugins hold."""


def raise_limit() -> int | None:
    """
    Have as many as the administrator allows: the soft limit is often 1,024, for the sake of programs that use select().

    How many that is; None where the system has no such limit (Windows).
    """
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # pragma: no cover - macOS allows less than it says
            return soft
        return wanted
    return soft if soft != resource.RLIM_INFINITY else _MOST


def say(limit: int | None, server: ServerConfig) -> None:
    """Log *limit*, as a warning where what *server* allows needs more: a call takes two, its client's and its LLM's."""
    if limit is None:
        return
    needed = _FOR_THE_REST + server.max_connections + server.max_in_flight
    calls = max(limit - _FOR_THE_REST, 0) // 2
    if needed > limit:
        advice = "raise the limit of open files (LimitNOFILE=, ulimit -n), or lower max_connections or max_in_flight"
        _log.warning("the limit of descriptors is low", descriptors=limit, needed=needed, advice=advice)
    else:
        _log.info("descriptors", descriptors=limit, calls_at_once=calls)
