"""Calls without a network: a gateway, and what its metrics are told of calls that were never made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from llmproxy_core import End as EndOf
from llmproxy_core import Exchange, Money, Outcome, Request, Services, Tasks, Usage
from llmproxy_core.attempt import Attempt
from llmproxy_core.config import structure
from llmproxy_core.errors import ProxyError
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.headers import Headers
from llmproxy_core.plugins import Registry
from llmproxy_core.prices import NoPrices, Prices
from llmproxy_core.request import client_view
from llmproxy_server.door_request import Incoming
from llmproxy_server.metrics.call_metrics import CallMetrics
from llmproxy_server.metrics.metering import Metering, Scope
from llmproxy_server.record import Ended
from tests.proxy import STANDARD_PLUGINS

USAGE, COST = Usage(100, 50), Money(3_000_000)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _no_transport(pool: object) -> Any:
    return None


@attrs.define
class Call:
    """What a recorder knows of a call at the edge."""

    began_s: float
    status: int = 200
    request_id: str = "request"
    method: str = "POST"
    path: str = "/v1/chat/completions"
    address: str = "127.0.0.1"

    @property
    def incoming(self) -> Incoming:
        return Incoming(self.method, self.path, self.path, "", (1, 1), Headers(), self.address, secure=False)


class Counting:
    """The metrics of the gateway that *mapping* configures; the clock stands still but for what a test adds."""

    def __init__(
        self, mapping: Mapping[str, Any], metering: Metering | None = None, *, prices: Prices | None = None
    ) -> None:
        registry = Registry.of(*STANDARD_PLUGINS)
        config, _ = structure(mapping, registry, {})
        self.clock = Clock()
        self.metering = metering or Metering.alone()
        self.scope: Scope = self.metering.scope()
        self.gateway: Gateway = build(
            config,
            registry,
            lambda llm: Services(
                llm=llm,
                transport=_no_transport,
                tasks=Tasks(),
                clock=self.clock,
                prices=prices or NoPrices(),
                meter=self.scope.meter,
            ),
        )
        self.calls: CallMetrics = self.scope.calls(self.gateway)
        self.scope.activate()
        self._begun: dict[Exchange, object] = {}

    def begin(self, exchange: Exchange) -> None:
        """Its call begins."""
        self._begun[exchange] = self.calls.begin(exchange)

    def exchange(self, model: str, *, stream: bool = False) -> Exchange:
        """A call that begins now."""
        match = self.gateway.match("POST", "/v1/chat/completions")
        text = json.dumps({"model": model, "stream": stream, "messages": []})
        request = Request(operation=match.operation, dialect=match.dialect, api=match.api, body=text.encode())
        return Exchange(
            request,
            id="x",
            route=match.route.name,
            tasks=self.gateway.services.tasks,
            clock=self.clock,
            client=client_view(request),
        )

    def attempt(
        self,
        exchange: Exchange,
        seconds: float = 0.3,
        *,
        llm: str = "openai",
        sent: str | None = None,
        answered: str | None = None,
        first_byte_s: float | None = None,
        error: ProxyError | None = None,
    ) -> Attempt:
        """An attempt that takes *seconds*: the clock goes on. *first_byte_s*: after so long, of a stream."""
        began_s = self.clock.now
        model = exchange.request.model if sent is None else sent
        attempt = Attempt(llm, model, began_s, request=exchange.request, sent_s=began_s)
        exchange.attempts.append(attempt)
        self.clock.now += seconds
        if error is not None:
            attempt.failed(error, self.clock.now)
            return attempt
        attempt.status = 200
        outcome = Outcome(
            EndOf.COMPLETED,
            usage=USAGE,
            cost=COST,
            model=answered or model,
            started_s=self.clock.now if first_byte_s is None else began_s,
            first_byte_s=self.clock.now if first_byte_s is None else began_s + first_byte_s,
            ended_s=self.clock.now,
        )
        attempt.answered(outcome)
        return attempt

    def end(
        self, exchange: Exchange, *, began_s: float = 1000.0, status: int = 200, bill: Outcome | None = None
    ) -> Ended:
        """The call is over, and paid."""
        last = next((it.outcome for it in reversed(exchange.attempts) if it.outcome is not None), None)
        outcome = bill or last or Outcome(EndOf.COMPLETED, ended_s=self.clock.now)
        over = attrs.evolve(outcome, ended_s=self.clock.now)
        ended = Ended(Call(began_s), exchange, over, status, None, begun=self._begun.pop(exchange))
        self.calls.ended(ended)
        self.calls.billed(ended, outcome)
        return ended

    def one(self, model: str, *, stream: bool = False, **attempt: Any) -> None:
        """A whole call with one attempt."""
        exchange = self.exchange(model, stream=stream)
        began_s = self.clock.now
        self.begin(exchange)
        self.attempt(exchange, **attempt)
        self.end(exchange, began_s=began_s)

    def value(self, name: str, **labels: str) -> float:
        """Of a series with one cell."""
        return self.metering.snapshot().of(name).value(**labels)

    def cells(self, name: str, **labels: str) -> list[float]:
        """The cells of a series."""
        return self.metering.snapshot().of(name).cells[tuple(sorted(labels.items()))]

    def models(self, name: str = "llmproxy_requests_total") -> set[str]:
        """The values of `model` that something was counted for."""
        found = self.metering.snapshot().of(name).cells.items()
        return {dict(labels)["model"] for labels, cells in found if any(cells)}


__all__ = ["COST", "USAGE", "Counting"]
