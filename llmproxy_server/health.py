"""How the proxy and its LLMs are: `/health` for people, `/livez` and `/readyz` for orchestrators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import attrs
import msgspec

from llmproxy_core.config import Config
from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import UpstreamError
from llmproxy_core.exchange import Attempt, Clock, Exchange
from llmproxy_server.life import Life

State = Literal["unknown", "ok", "failing"]
_CALLERS_FAULT = frozenset({400, 404, 409, 413, 422})


@attrs.define
class LLMState:
    """What the last attempts on an LLM showed. Times are seconds of the monotonic clock."""

    provider: str
    enabled: bool
    state: State = "unknown"
    error: str | None = None
    error_s: float = 0.0


class Health:
    """Watches the exchanges, and answers for the process."""

    def __init__(self, config: Config, life: Life, *, version: str, clock: Clock, in_flight: Callable[[], int]) -> None:
        self._life = life
        self._version = version
        self._clock = clock
        self._in_flight = in_flight
        self._began_s = clock()
        self._llms = {name: LLMState(llm.provider, llm.enabled) for name, llm in config.llms.items()}

    # -- watching ------------------------------------------------------------------------------------------------

    def watch(self, exchange: Exchange) -> None:
        """Learn from the attempts of *exchange*, and of its children, when all that it pays for is over."""
        exchange.on_billed(lambda outcome: self._learn_from(exchange))

    def _learn_from(self, exchange: Exchange) -> None:
        attempts = exchange.attempts
        if children := exchange.child_attempts:
            attempts = sorted([*attempts, *children], key=lambda attempt: attempt.started_s)
        self.learn(attempts)

    def learn(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            if (llm := self._llms.get(attempt.llm)) is None:
                continue
            error = attempt.error
            if isinstance(error, UpstreamError) and error.upstream_status not in _CALLERS_FAULT:
                llm.state, llm.error, llm.error_s = "failing", error.code, self._clock()
            elif attempt.status is not None:  # it answered: what it said of the request is another matter
                llm.state = "ok"

    # -- answering -----------------------------------------------------------------------------------------------

    def endpoints(self) -> Iterator[Endpoint]:
        yield Endpoint("GET", "/health", self.health)
        yield Endpoint("GET", "/livez", self.livez)
        yield Endpoint("GET", "/readyz", self.readyz)

    async def health(self, request: EndpointRequest) -> EndpointReply:
        """Everything, with status 200 for as long as we can say so: an LLM that fails is not us failing."""
        now = self._clock()
        said = {
            "status": self._word(),
            "version": self._version,
            "uptime_s": round(now - self._began_s, 1),
            "draining": self._life.draining,
            "in_flight": self._in_flight(),
            "llms": {name: _llm(llm, now) for name, llm in self._llms.items()},
        }
        return EndpointReply(msgspec.json.encode(said))

    async def livez(self, request: EndpointRequest) -> EndpointReply:
        """The event loop turns: 200."""
        return EndpointReply(b'{"status":"ok"}')

    async def readyz(self, request: EndpointRequest) -> EndpointReply:
        """200 while calls are wanted, else 503."""
        word = self._word()
        return EndpointReply(msgspec.json.encode({"status": word}), status=200 if word == "ok" else 503)

    def _word(self) -> str:
        if self._life.draining:
            return "draining"
        return "ok" if self._life.ready else "starting"


def _llm(llm: LLMState, now: float) -> dict[str, object]:
    said: dict[str, object] = {"provider": llm.provider, "enabled": llm.enabled, "state": llm.state}
    if llm.error is not None:
        said["last_error"] = {"code": llm.error, "age_s": round(now - llm.error_s, 1)}
    return said
