"""What the last attempts on an LLM showed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import attrs

from llmproxy_core.attempt import Attempt
from llmproxy_core.errors import FAILED_CODES, ProxyError, UpstreamError
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.places import Places
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.resilience.breaker_state import State as BreakerState
from llmproxy_core.resilience.failure import failure_of
from llmproxy_server.health_reason import Reason

State = Literal["unknown", "ok", "failing"]
Standing = Literal["ok", "unknown", "failing", "full", "resting", "open", "drained", "disabled"]
"""How an LLM is, the worst last: a State while it can be called, else why it cannot."""
STANDINGS: tuple[Standing, ...] = get_args(Standing)
"""From the best to the worst."""
_OPEN = BreakerState.OPEN
_WEIGHT = 0.1  # of the last call in the usual latency: some twenty calls count


@attrs.define(eq=False)
class LLMState:
    """One configured LLM. Times are seconds of the monotonic clock."""

    name: str
    config: LLMConfig
    state: State = "unknown"
    tried_s: float | None = None
    """When the last attempt was over that showed something."""
    code: str | None = None
    status: int | None = None
    failed_s: float = 0.0
    """Of the last failure, and what it was."""
    latency_s: float | None = None
    """How long the last answer took to begin; a plain one, to be read."""
    usual_latency_s: float | None = None
    """The moving average of these."""
    guards: Sequence[Guarded] = ()
    """Its keys, of the configuration that is served; none where nothing of it is watched but its calls."""

    def learn(self, attempt: Attempt, now: float) -> None:
        """An attempt of a call is over."""
        self.judge(attempt, now)
        outcome = attempt.outcome
        if outcome is not None and outcome.first_byte_s is not None:
            latency_s = self.latency_s = outcome.first_byte_s - attempt.started_s
            usual_s = self.usual_latency_s
            self.usual_latency_s = latency_s if usual_s is None else usual_s + _WEIGHT * (latency_s - usual_s)

    def judge(self, attempt: Attempt, now: float) -> None:
        """What *attempt*, which is over, shows of the LLM's health; of a probe nothing else is to be learnt."""
        error = attempt.error
        if isinstance(error, UpstreamError) and failure_of(error).is_llms:
            self.state, self.tried_s = "failing", now
            self.code, self.status, self.failed_s = own_code(error), error.upstream_status, now
        elif attempt.status is not None:  # it answered: what it said of the request is another matter
            self.state, self.tried_s = "ok", now

    @property
    def places(self) -> Places | None:
        """Its calls in flight; None where nobody counts them."""
        return self.guards[0].places if self.guards else None

    @property
    def open_keys(self) -> int:
        """How many of its keys are not used since they failed too often."""
        return sum(key_standing(guard) == "open" for guard in self.guards)

    @property
    def standing(self) -> Standing:
        """How it is, all that is known taken together."""
        places = self.places
        if not self.config.enabled:
            return "disabled"
        if places is None:
            return self.state
        if places.drained:
            return "drained"
        keys = [key_standing(guard) for guard in self.guards]
        if "ok" not in keys:
            return "open" if "open" in keys else "resting"
        return self.state if places.refusal() is None else "full"

    def reasons(self, now: float) -> Iterator[Reason]:
        part, places = f"llm.{self.name}", self.places
        if places is not None and places.drained:
            yield Reason(part, "llm_drained", "it was taken out of service")
        if (open_keys := self.open_keys) > 0:
            keys = len(self.guards)
            what = "its breaker is open" if keys == 1 else f"the breakers of {open_keys} of its {keys} keys are open"
            yield Reason(part, "breaker_open", f"{what}: it failed too often")
        if self.state == "failing" and self.code is not None:
            how = "" if self.status is None else f" (status {self.status})"
            yield Reason(part, self.code, f"its last call failed{how}", now - self.failed_s)

    def said(self, now: float) -> dict[str, object]:
        return {"provider": self.config.provider, "enabled": self.config.enabled, **self.tries_said(now)}

    def tries_said(self, now: float) -> dict[str, object]:
        """What the last attempts showed."""
        said: dict[str, object] = {"state": self.state}
        if self.tried_s is not None:
            said["tried_age_s"] = round(now - self.tried_s, 1)
        if self.code is not None:
            error: dict[str, object] = {"code": self.code, "age_s": round(now - self.failed_s, 1)}
            said["last_error"] = error if self.status is None else {**error, "status": self.status}
        return said


def best_off(
    llm: LLMState,
    llms: Mapping[str, LLMState],
    standing: Callable[[LLMState], Standing],
    above: frozenset[str] = frozenset(),
) -> LLMState:
    """
    Of a group the member that is best off by *standing*, a group among them by its own best; else *llm* itself.

    *above*: the groups that it is a member of.
    """
    if not isinstance(llm.config, GroupConfig) or not llm.config.enabled:
        return llm
    names = [name for name in llm.config.members if name in llms and name not in above]
    found = [best_off(llms[name], llms, standing, above | {llm.name}) for name in names]
    return min(found, key=lambda it: STANDINGS.index(standing(it)), default=llm)


def key_standing(guard: Guarded) -> Literal["ok", "resting", "open"]:
    """Whether calls are made with the key of *guard*, and if not, why."""
    if guard.breaker is not None and guard.breaker.state is _OPEN:
        return "open"
    return "resting" if guard.rests_s() > 0 else "ok"


def own_code(error: ProxyError) -> str:
    """The code of *error* where it is a constant of a class or of ours; what a provider sent is not told."""
    constants = {vars(kind).get("code") for kind in type(error).__mro__}
    return error.code if error.code in constants | FAILED_CODES else type(error).code
