"""`/providers`: how each configured LLM is, and by `POST` taking one out of service, or restoring it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Protocol

import msgspec

from llmproxy_core.config_problem import nearest, safe
from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.exchange import Clock
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_server.health_llm import LLMState, best_off, key_standing
from llmproxy_server.providers_drained import Drained
from llmproxy_server.providers_merge import merge_drained, merge_providers, refusal

PATH = "/providers"


class KnowsLLMs(Protocol):
    """Whoever knows how the LLMs are."""

    @property
    def llms(self) -> Mapping[str, LLMState]: ...

    @property
    def clock(self) -> Clock:
        """The one of the times in these."""
        ...

    @property
    def drained(self) -> Drained: ...

    @property
    def is_ending(self) -> bool:
        """Whether the process is about to end."""
        ...


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /providers` takes."""

    llm: str
    drained: bool


class DrainDone(msgspec.Struct):
    """What it answers."""

    llm: str
    drained: bool
    in_flight: int
    """Calls that the LLM is still at work on."""


class Providers:
    """Answers for the LLMs that are served from when it is asked."""

    def __init__(self, health: KnowsLLMs) -> None:
        self._health = health

    def endpoints(self) -> Iterator[Endpoint]:
        yield Endpoint("GET", PATH, self.look, local_only=True, merge=merge_providers)  # it names keys
        yield Endpoint("POST", PATH, self.drain, local_only=True, merge=merge_drained)

    async def look(self, request: EndpointRequest) -> EndpointReply:
        """All of them, in the order of the configuration. It names keys, and tells none."""
        llms, now = self._health.llms, self._health.clock()
        return EndpointReply(msgspec.json.encode({"llms": {name: _said(it, llms, now) for name, it in llms.items()}}))

    async def drain(self, request: EndpointRequest) -> EndpointReply:
        """
        Have an LLM be given no more calls, or calls again; what it is at work on goes on.

        The latter also ends the rests that its provider has asked for.

        400 for what cannot be read, 404 for an LLM that is not configured, 409 for one whose calls nobody counts, and
        while the process drains: nobody would remember it.
        """
        try:
            asked = msgspec.json.decode(request.body, type=Drain)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return refusal(400, "bad_request", f'Expected {{"llm": NAME, "drained": true or false}}: {error}')
        llm = self._health.llms.get(asked.llm)
        if llm is None:
            return refusal(404, "llm_not_found", f'No LLM "{safe(asked.llm)}"; {nearest(asked.llm, self._health.llms)}')
        places = llm.places
        if places is None:
            return refusal(409, "llm_not_guarded", _why_not(llm))
        if self._health.is_ending:
            return refusal(409, "about_to_end", "The process is about to end, and forgets it: ask its successor")
        self._health.drained.change(llm.name, asked.drained)
        if not asked.drained:
            for guard in llm.guards:
                guard.restore()
        return EndpointReply(msgspec.json.encode(DrainDone(llm.name, places.drained, places.in_flight)))


def _why_not(llm: LLMState) -> str:
    """Why *llm* cannot be drained, and what would help."""
    if not llm.config.enabled:
        return f"The LLM '{llm.name}' is switched off: enabled is false"
    if isinstance(llm.config, GroupConfig):
        return f"The LLM '{llm.name}' is a group: drain its members"
    return (
        f"Nobody counts the calls of the LLM '{llm.name}': make it a member of a group that falls over, or add one of "
        "retries, breaker, max_in_flight to its table (`retries = {}` will do)"
    )


# -- what is said of one ---------------------------------------------------------------------------------------------


def _said(llm: LLMState, llms: Mapping[str, LLMState], now: float) -> dict[str, object]:
    best = best_off(llm, llms, attrgetter("standing"))
    said = {**llm.said(now), **best.tries_said(now), "state": best.standing}
    if llm.latency_s is not None and llm.usual_latency_s is not None:
        said["latency"] = {"last_s": round(llm.latency_s, 4), "usual_s": round(llm.usual_latency_s, 4)}
    config, places = llm.config, llm.places
    if isinstance(config, GroupConfig):
        said["members"] = config.members
    if places is not None:
        said |= {
            "drained": places.drained,
            "in_flight": places.in_flight,
            "max_in_flight": config.max_in_flight or None,
        }
        if config.max_queued:
            said["waiting"] = places.waiting
        said["keys"] = [_key(guard) for guard in llm.guards]
    if isinstance(config, HttpLLMConfig) and config.probe is not None:
        said["probe_every_s"] = config.probe.every_s
    return said


def _key(guard: Guarded) -> dict[str, object]:
    said: dict[str, object] = {"state": key_standing(guard), "rests_s": round(guard.rests_s(), 3)}
    if guard.key is not None:
        said = {"name": guard.key, **said}
    if guard.breaker is not None:
        at = guard.breaker.snapshot()
        said["breaker"] = {
            "state": at.state.value,
            "calls": at.calls,
            "failure_rate": round(at.failure_rate, 4),
            "slow_rate": round(at.slow_rate, 4),
            "opened": at.opened,
            "retry_in_s": round(at.retry_in_s, 3),
        }
    return said
