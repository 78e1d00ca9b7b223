"""Whether a store answers: it is asked for a key, now and then, and never by two at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Literal

from llmproxy_core.errors import ProxyError, raise_unless_bug
from llmproxy_core.exchange import Clock
from llmproxy_core.stores import Store
from llmproxy_core.tasks import Tasks
from llmproxy_server.health_llm import own_code
from llmproxy_server.health_reason import Reason
from llmproxy_server.log_events import get_logger

TIMEOUT_S = 0.25
"""How long a store may take for its answer."""
CACHED_S = 1.0
"""How long an answer counts."""
TOO_SLOW = "store_timeout"
_SPACE, _KEY, _SPACE_BYTES = "llmproxy_health", "probe", 1024
_log = get_logger()

State = Literal["unknown", "ok", "failing"]


class StoreProbe:
    """
    Asks one store. There is at most one question at a time, however many want to know, and however long it hangs.

    A question reads a key that is never set: it shows that the store can be reached, not that it can be written to.
    """

    def __init__(self, name: str, kind: str, store: Store, *, clock: Clock, tasks: Tasks) -> None:
        """*kind* is the name of its type."""
        self.store = store
        self.state: State = "unknown"
        self.code: str | None = None
        """Why it is failing."""
        self._name = name
        self._kind = kind
        self._clock = clock
        self._tasks = tasks
        self._asked_s = float("-inf")
        self._since_s = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Have `state` be right, as far as that can be found out within TIMEOUT_S."""
        now = self._clock()
        if self._asking is None and now - self._asked_s >= CACHED_S:
            self._asked_s = now
            self._asking = self._tasks.start(self._ask(), name=f"probe of store {self._name}")
        if (asking := self._asking) is None:
            return
        if (left_s := self._asked_s + TIMEOUT_S - now) > 0:
            await asyncio.wait({asking}, timeout=left_s)
        if not asking.done():
            self._is("failing", TOO_SLOW)
            asking.cancel()  # one that does not end all the same is the only one that there will be

    async def _ask(self) -> None:
        try:
            await self.store.key_value(_SPACE, max_bytes=_SPACE_BYTES).get(_KEY)
        except ProxyError as error:
            self._is("failing", own_code(error))
        except BaseException as bug:  # noqa: BLE001 - whatever a store's plugin does, health tells of it
            raise_unless_bug(bug)
            self._is("failing", "store_failed", bug)
        else:
            self._is("ok")
        finally:
            self._asking = None

    def _is(self, state: State, code: str | None = None, bug: BaseException | None = None) -> None:
        if (state, code) == (self.state, self.code):
            return
        if state != self.state:
            self._since_s = self._clock()
            if state == "failing":
                why = code if bug is None else type(bug).__name__
                _log.warning("a store does not answer as it should", store=self._name, reason=why)
            elif self.state == "failing":
                _log.info("a store answers again", store=self._name)
        self.state, self.code = state, code

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    def reasons(self, now: float) -> Iterator[Reason]:
        if self.state == "failing" and self.code is not None:
            message = f"it gave no answer within {TIMEOUT_S} s" if self.code == TOO_SLOW else "it cannot be asked"
            yield Reason(f"store.{self._name}", self.code, message, now - self._since_s)

    def said(self, now: float) -> dict[str, object]:
        said: dict[str, object] = {"type": self._kind, "state": self.state}
        if self.code is not None:
            said["error"] = {"code": self.code, "age_s": round(now - self._since_s, 1)}
        return said


async def look_at(probes: Mapping[str, StoreProbe]) -> None:
    """Look at all stores, at the same time."""
    if probes:
        await asyncio.gather(*(probe.look() for probe in probes.values()))
