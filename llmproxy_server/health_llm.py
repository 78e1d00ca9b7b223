"""What the last attempts on an LLM showed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs

from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.exchange import Attempt
from llmproxy_core.llm_config import LLMConfig
from llmproxy_server.health_reason import Reason

State = Literal["unknown", "ok", "failing"]
_CALLERS_FAULT = frozenset({400, 404, 409, 413, 422})
_OURS = frozenset({"upstream_timeout_first_byte", "upstream_timeout_idle", "upstream_timeout_total"})


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

    def learn(self, attempt: Attempt, now: float) -> None:
        error = attempt.error
        if isinstance(error, UpstreamError) and error.upstream_status not in _CALLERS_FAULT:
            self.state, self.tried_s = "failing", now
            self.code, self.status, self.failed_s = own_code(error), error.upstream_status, now
        elif attempt.status is not None:  # it answered: what it said of the request is another matter
            self.state, self.tried_s = "ok", now

    def reasons(self, now: float) -> Iterator[Reason]:
        if self.state == "failing" and self.code is not None:
            how = "" if self.status is None else f" (status {self.status})"
            yield Reason(f"llm.{self.name}", self.code, f"its last call failed{how}", now - self.failed_s)

    def said(self, now: float) -> dict[str, object]:
        said: dict[str, object] = {
            "provider": self.config.provider,
            "enabled": self.config.enabled,
            "state": self.state,
        }
        if self.tried_s is not None:
            said["tried_age_s"] = round(now - self.tried_s, 1)
        if self.code is not None:
            error: dict[str, object] = {"code": self.code, "age_s": round(now - self.failed_s, 1)}
            said["last_error"] = error if self.status is None else {**error, "status": self.status}
        return said


def own_code(error: ProxyError) -> str:
    """The code of *error* where it is a constant of a class or of ours; what a provider sent is not told."""
    constants = {vars(kind).get("code") for kind in type(error).__mro__}
    return error.code if error.code in constants | _OURS else type(error).code
