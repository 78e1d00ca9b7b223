"""
What the tests of the goals share: a group of two with all that makes it stand firm, and the word for what was measured.

The goals are the rows of the table of faults that docs/reliability.md reports; each test names its row and holds its
figure. `figure` writes what was measured into the report of pytest (`--junitxml`).
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from tests.answers import DONE
from tests.exact import Seen
from tests.rawclient import Client
from tests.resilience.flocks import QUICK, group
from tests.upstream import Upstream

BREAKER = {"open_s": 0.3, "max_open_s": 0.6}
"""As it comes: half of twenty calls; open for a shorter time, since tests wait for its end."""
DEADLINE_S = 20.0
Figure = Callable[[str, object], None]
"""The fixture `record_property`."""


def guarded(
    *upstreams: Upstream,
    provider: str = "fallback",
    llm: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """The LLMs `a`, `b`, ... in the group `all` with retries, breakers and a deadline, in front of which is `/v1`."""
    mapping: dict[str, Any] = group(provider, *upstreams, llm={"breaker": BREAKER, **(llm or {})}, **keys)
    mapping["route"][0] |= {"deadline_s": DEADLINE_S, "expose_attempts": False, **(route or {})}
    return mapping


def tries(max_retries: int, **keys: object) -> dict[str, Any]:
    """As QUICK, with another number."""
    return {**QUICK, "max_retries": max_retries, **keys}


def reset(client: Client) -> None:
    """Leave with RST."""
    writer = client.writer
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def quantiles_ms(seconds: Iterable[float]) -> str:
    """The middle and the worst of some times, for people."""
    found = sorted(seconds)
    middle, worst = found[math.ceil(len(found) / 2) - 1], found[-1]
    return f"p50 {middle * 1000:.1f} ms, worst {worst * 1000:.1f} ms of {len(found)}"


# -- what became of a call -------------------------------------------------------------------------------------------


@attrs.frozen
class Became:
    """
    What a client of OpenAI's sees of an answer.

    *kind*: "right" (whole, by its protocol), "told" (an error as the status, or as the last event of a stream) or
    "otherwise": what nobody must see.
    """

    kind: str
    text: str = ""
    code: str = ""


def became(status: int, body: bytes, whole: bool) -> Became:
    """What an answer came to."""
    if not body.startswith(b"data: "):
        return _plain(status, body, whole)
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n")[:-1]]
    ended = events[-1] == b"[DONE]"
    values = [json.loads(event) for event in (events[:-1] if ended else events)]
    errors = [value["error"] for value in values if "error" in value]
    text = "".join(choice["delta"].get("content") or "" for value in values for choice in value.get("choices", ()))
    if whole and ended and not errors and body.endswith(DONE):
        return Became("right", text)
    if not ended and len(errors) == 1 and "error" in values[-1] and not whole:
        return Became("told", text, _code(errors[0]))
    return Became("otherwise", text)


def _plain(status: int, body: bytes, whole: bool) -> Became:
    try:
        value = json.loads(body)
    except ValueError:
        return Became("otherwise")
    if not isinstance(value, dict):
        return Became("otherwise")
    if whole and status == 200 and "choices" in value:
        return Became("right", value["choices"][0]["message"]["content"])
    if whole and status >= 400 and "error" in value:
        return Became("told", "", _code(value["error"]))
    return Became("otherwise")


def _code(error: Any) -> str:
    """That of an error, which may be a provider's own and have none."""
    return str(error.get("code") or "") if isinstance(error, dict) else ""


def of(seen: Seen) -> Became:
    """What an answer came to that was seen as it stood on the wire."""
    return became(seen.status, seen.body, seen.whole)


__all__ = ["BREAKER", "DEADLINE_S", "Became", "Figure", "became", "guarded", "of", "quantiles_ms", "reset", "tries"]
