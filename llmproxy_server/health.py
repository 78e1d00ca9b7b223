"""How the proxy and what it needs are: `/health` for people, `/livez` and `/readyz` for orchestrators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter

import msgspec

from llmproxy_core.attempt import Attempt
from llmproxy_core.config import Config
from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.exchange import Clock, Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.llm import LLMClient
from llmproxy_core.stores import Store
from llmproxy_core.tasks import Tasks
from llmproxy_server import logs
from llmproxy_server.health_llm import LLMState, best_off
from llmproxy_server.health_merge import merge
from llmproxy_server.health_reason import Check, Growing, Reason
from llmproxy_server.health_store import StoreProbe, look_at
from llmproxy_server.life import Life
from llmproxy_server.providers_drained import Drained


class Health:
    """
    Watches the exchanges, and answers for the process.

    One for a process: it outlives its configurations, each of which is told to it by `configure`.
    """

    def __init__(
        self,
        config: Config,
        life: Life,
        *,
        version: str,
        clock: Clock,
        in_flight: Callable[[], int],
        stores: Mapping[str, Store] = FrozenMap(),
        tasks: Tasks | None = None,
    ) -> None:
        """*stores* are those of *config*, running; *tasks* holds the questions that they are asked."""
        self._life = life
        self._version = version
        self.clock = clock
        self._in_flight = in_flight
        self._tasks = Tasks() if tasks is None else tasks
        self._began_s = clock()
        self.llms: Mapping[str, LLMState] = {}
        """What is known of the configured LLMs; a call that begins now is to be learnt from for these."""
        self.drained = Drained()
        self._stores: dict[str, StoreProbe] = {}
        self._standing: dict[str, tuple[Reason, float]] = {}
        dropped = "log lines were dropped since the start: the output does not take them"
        self._checks: list[Check] = [Growing("log", "lines_dropped", dropped, logs.dropped, clock)]
        self.configure(config, stores)

    def configure(
        self, config: Config, stores: Mapping[str, Store], llms: Mapping[str, LLMClient] = FrozenMap()
    ) -> None:
        """
        *config* is what is served from now on, *stores* and *llms* are those that it made.

        What is known stays, of LLMs that are configured as before, and of stores that are the same.
        """
        known, probes = self.llms, self._stores
        self.llms = {
            name: known[name] if name in known and known[name].config == llm else LLMState(name, llm)
            for name, llm in config.llms.items()
        }
        for name, state in self.llms.items():
            made = llms.get(name)
            state.guards = () if made is None else tuple(it for it in layers(made) if isinstance(it, Guarded))
        self.drained.follow(self.llms)
        self._stores = {
            name: probes[name]
            if name in probes and probes[name].store is store
            else StoreProbe(name, config.stores[name].type.name, store, clock=self.clock, tasks=self._tasks)
            for name, store in stores.items()
        }
        for name, probe in probes.items():
            if self._stores.get(name) is not probe:
                probe.close()

    # -- watching ------------------------------------------------------------------------------------------------

    @property
    def is_ending(self) -> bool:
        """Whether the process drains, so that what it is told now is lost."""
        return self._life.draining

    def learn_from(self, exchange: Exchange, llms: Mapping[str, LLMState], only: Attempt | None = None) -> None:
        """
        Learn from the attempts of *exchange* and of its children; all that it pays for is over.

        *only*: the one that there was, where that is known.
        """
        if only is not None:
            if (llm := llms.get(only.llm)) is not None:
                llm.learn(only, self.clock())
            return
        attempts, now = exchange.attempts, self.clock()
        if exchange.child_calls and (children := exchange.child_attempts):
            attempts = sorted([*attempts, *children], key=lambda attempt: attempt.started_s)
        for attempt in attempts:
            if (llm := llms.get(attempt.llm)) is not None:
                llm.learn(attempt, now)

    def learn(self, attempts: list[Attempt]) -> None:
        now = self.clock()
        for attempt in attempts:
            if (llm := self.llms.get(attempt.llm)) is not None:
                llm.learn(attempt, now)

    def probed(self, name: str, attempt: Attempt) -> None:
        """The LLM *name* was asked how it is, by *attempt*, which is over."""
        if (llm := self.llms.get(name)) is not None:
            llm.judge(attempt, self.clock())

    # -- what else may be amiss ----------------------------------------------------------------------------------

    def add(self, check: Check) -> None:
        """Ask *check* for its reasons too."""
        self._checks.append(check)

    def complain(self, part: str, code: str, message: str) -> None:
        """*part* is not as it should be, until `clear`. In words of ours: everybody may read them."""
        self._standing[part] = Reason(part, code, message), self.clock()

    def clear(self, part: str) -> None:
        """*part* is well again."""
        self._standing.pop(part, None)

    # -- answering -----------------------------------------------------------------------------------------------

    def endpoints(self) -> Iterator[Endpoint]:
        yield Endpoint("GET", "/health", self.health, merge=merge)
        yield Endpoint("GET", "/livez", self.livez)
        yield Endpoint("GET", "/readyz", self.readyz)

    async def health(self, request: EndpointRequest) -> EndpointReply:
        """
        Everything, with status 200 for as long as we can say so: an LLM that fails is not us failing.

        It takes as long as the slowest store, and no longer than these are given.
        """
        await look_at(self._stores)
        now = self.clock()
        reasons = list(self._reasons(now))
        word = self._word()
        said = {
            "status": "degraded" if word == "ok" and reasons else word,
            "reasons": [reason.said() for reason in reasons],
            "version": self._version,
            "uptime_s": round(now - self._began_s, 1),
            "draining": self._life.draining,
            "in_flight": self._in_flight(),
            "llms": {name: self._said(llm, now) for name, llm in self.llms.items()},
            "stores": {name: store.said(now) for name, store in self._stores.items()},
        }
        return EndpointReply(msgspec.json.encode(said))

    def _said(self, llm: LLMState, now: float) -> dict[str, object]:
        return {**llm.said(now), **best_off(llm, self.llms, attrgetter("state")).tries_said(now)}

    def _reasons(self, now: float) -> Iterator[Reason]:
        for llm in self.llms.values():
            yield from llm.reasons(now)
        for store in self._stores.values():
            yield from store.reasons(now)
        for reason, since_s in self._standing.values():
            yield Reason(reason.part, reason.code, reason.message, now - since_s)
        for check in self._checks:
            yield from check()

    async def livez(self, request: EndpointRequest) -> EndpointReply:
        """The event loop turns: 200."""
        return EndpointReply(b'{"status":"ok"}')

    async def readyz(self, request: EndpointRequest) -> EndpointReply:
        """200 while calls are wanted and all is loaded, else 503."""
        word = self._word()
        if word == "ok" and not self._life.has_all():
            word = "starting"
        return EndpointReply(msgspec.json.encode({"status": word}), status=200 if word == "ok" else 503)

    def _word(self) -> str:
        """Of the process itself."""
        if self._life.draining:
            return "draining"
        return "ok" if self._life.ready else "starting"
