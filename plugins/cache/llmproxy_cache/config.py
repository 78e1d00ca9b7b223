"""The keys of a cache."""

from __future__ import annotations

from typing import Literal

import attrs

from llmproxy_core import between, byte_size, option, some_seconds


@attrs.frozen(kw_only=True)
class CacheConfig:
    """Keeps complete answers and gives them again to who asks exactly the same."""

    enabled: bool = option(
        "false: every call passes by, nothing is kept and nothing is shared.", default=True, env="CACHE_ENABLED"
    )
    ttl_s: float = option(
        "Seconds for which an answer is given again.",
        default=3600.0,
        validator=some_seconds,
        fills_config_value=True,
        env="CACHE_TTL",
    )
    max_bytes: int = option(
        "All answers together, with their keys; what was used least recently goes first.",
        default=64 << 20,
        validator=byte_size,
    )
    max_entry_bytes: int = option(
        "The longest answer that is kept; a longer stream can be joined only until it has reached this length.",
        default=1 << 20,
        validator=byte_size,
    )
    share: Literal["caller", "tenant"] = option(
        "Who gets an answer that somebody asked for: the same caller only, or everybody of the same tenant.",
        default="caller",
    )
    max_temperature: float | None = option(
        "Requests with a higher temperature pass by; one that says none counts as 1. Absent: all are kept.",
        default=None,
        validator=between(0, 2, "a temperature"),
    )
    store: str = option("The store that holds the answers.", default="memory", refers_to="store")
    store_timeout_s: float = option(
        "Seconds after which a store that does not answer counts as down: the call goes on as a miss.",
        default=0.25,
        validator=some_seconds,
    )
