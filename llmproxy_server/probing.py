"""Active probes: LLMs that are asked for their list of models now and then, to know how they are when nobody calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import (
    ProxyError,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    forget_tracebacks,
    raise_unless_bug,
)
from llmproxy_core.exchange import Exchange
from llmproxy_core.gateway import Gateway
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.outcome import End
from llmproxy_core.request import Request
from llmproxy_core.resilience.breaker import Breaker, Pass
from llmproxy_core.resilience.breaker_state import State
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.response import Reply, Response
from llmproxy_core.tasks import Tasks
from llmproxy_server.log_events import get_logger

_log = get_logger()
_WITHOUT_LIST = frozenset({404, 405, 501})
"""What servers answer that have no list of models. They are there, so that nothing is wrong with them."""
Told = Callable[[str, Attempt], None]
"""Is given the name of an LLM, and what came of asking it."""


class Probing:
    """
    Probes the LLMs whose tables say so. One for a process.

    A reload that leaves a table as it is does not disturb its probes; they end with the table, and with `stop`.
    """

    def __init__(self, tasks: Tasks, told: Told) -> None:
        self._tasks = tasks
        self._told = told
        self._probers: dict[str, Prober] = {}
        self._stopped = False

    def follow(self, gateway: Gateway) -> None:
        """Probe what *gateway* calls, from now on. In the event loop."""
        if self._stopped:
            return
        before, self._probers = self._probers, {}
        for name, config in gateway.config.llms.items():
            if isinstance(config, HttpLLMConfig) and config.probe is not None and name in gateway.llms:
                prober = before.get(name)
                if prober is None or prober.config != config:
                    prober = Prober(config, self._tasks, self._told)
                self._probers[name] = prober
                prober.follow(gateway)
        for name, prober in before.items():
            if self._probers.get(name) is not prober:
                prober.stop()

    def stop(self) -> None:
        """Probe nothing any more; what is under way is given up. May be called again."""
        self._stopped = True
        for prober in self._probers.values():
            prober.stop()


class Prober:
    """
    Probes one LLM, with each of its keys in turn: never two at once, however long they take.

    A probe is no call of a client's: it is neither logged nor billed, takes no place in `max_in_flight`, and is not
    tried again. An LLM that is drained is not probed, nor with a key that rests, nor where the breaker lets nothing
    pass.

        answer                                   the LLM is    to its breaker
        a list of models that can be read        well          a success while it is half open, else nothing
        404, 405, 501: it has no list            well          nothing
        the key is refused or limited            failing       nothing, as a call that was told so
        any other, or none in time               failing       a failure

    A success counts only while the breaker is half open, since a list of models says little of an LLM whose answers
    fail, and must not stand against them.
    """

    def __init__(self, config: HttpLLMConfig, tasks: Tasks, told: Told) -> None:
        assert config.probe is not None
        self.config = config
        self._probe = config.probe
        self._tasks = tasks
        self._told = told
        self._gateway: Gateway
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._stopped = False
        self._complained = False

    def follow(self, gateway: Gateway) -> None:
        """Probe the LLM that *gateway* has made of the table; the first call has it begin."""
        self._gateway = gateway
        if self._timer is None:
            self._arm(self._probe.first_s(gateway.services.random))

    def stop(self) -> None:
        """Probe no more; what is under way is given up. May be called again."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _arm(self, wait_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin)

    def _begin(self) -> None:
        self._asking = self._tasks.start(self._ask_all(), name=f"probe of LLM {self.config.name}")

    async def _ask_all(self) -> None:
        attempts: list[Attempt] = []
        try:
            request = list_request(self._gateway, self.config)
            for llm, breaker in self._targets():
                attempts += await self._ask(llm, breaker, request)
        finally:
            self._asking = None
            if not self._stopped:
                self._tell(attempts)
                self._arm(self._probe.wait_s(self._gateway.services.random))

    def _targets(self) -> Iterator[tuple[LLMClient, Breaker | None]]:
        """The LLM, once for each key that may be used now."""
        made = self._gateway.llms[self.config.name]
        guards = [layer for layer in layers(made) if isinstance(layer, Guarded)]
        for guard in guards:
            if not guard.places.drained and guard.rests_s() <= 0:
                yield guard.inside[0], guard.breaker
        if not guards:
            yield made, None

    async def _ask(self, llm: LLMClient, breaker: Breaker | None, request: Request) -> list[Attempt]:
        services = self._gateway.services
        passed = None if breaker is None else breaker.admit()
        if breaker is not None and passed is None:
            return []
        is_trial = breaker is not None and breaker.state is State.HALF_OPEN
        exchange = Exchange(request, id="probe", route="", tasks=services.tasks, clock=services.clock)
        exchange.deadline_s = exchange.started_s + self._probe.timeout_s
        failed = counts = False
        try:
            async with exchange:
                response = await llm.send(exchange)
                _check(response)
                response.finish(End.COMPLETED)
            counts = is_trial
        except ProxyError as error:
            if exchange.attempts:
                judged = exchange.attempts[-1].error = self._judged(error)
                failed = counts = judged is not None and failure_of(judged).is_upstreams
            else:  # its protocol has no list of models
                self._complain(error)
            forget_tracebacks(error)  # they hold what was read: a cycle that nobody collects for a long time
        except BaseException as bug:  # noqa: BLE001 - of a plugin's: it must not end the probes, nor go unseen
            raise_unless_bug(bug)
            self._complain(bug)
        finally:
            if passed is not None:
                _end(passed, services.clock() - exchange.started_s, failed=failed, counts=counts)
        return exchange.attempts

    def _judged(self, error: ProxyError) -> ProxyError | None:
        """What *error* of a probe says of the LLM; None where that is nothing."""
        if failure_of(error) is Failure.DEADLINE:  # it is ours, so that it is the LLM that was late
            message = f"The probe was not answered within {self._probe.timeout_s:g} s"
            return UpstreamTimeout(message, code="upstream_timeout_total")
        status = error.upstream_status if isinstance(error, UpstreamError) else None
        if status in _WITHOUT_LIST:
            return None
        if status is None or failure_of(error).is_llms:  # without an answer it may be a bound of our own: a full pool
            return error
        # Of a client's call that would be the caller's fault; this one is our own, and right.
        return UpstreamGarbage(f"The provider answered the question for its models with status {status}")

    def _complain(self, why: BaseException) -> None:
        """Nobody asked for the probe, so nobody but the log is told that it could not even be made; once is enough."""
        if not self._complained:
            self._complained = True
            _log.error("an LLM cannot be probed", llm=self.config.name, exc_info=why)

    def _tell(self, attempts: list[Attempt]) -> None:
        """One key that works is enough for the LLM to be well."""
        if attempts:
            self._told(self.config.name, next((it for it in attempts if it.error is None), attempts[-1]))


def _check(response: Response) -> None:
    """UpstreamGarbage when *response* is no list of models: a page of whoever has the host now has status 200, too."""
    if isinstance(response, Reply) and response.api is not None:
        _ = response.dialect.read_models(response.api, response.body)


def _end(passed: Pass, seconds: float, *, failed: bool, counts: bool) -> None:
    if not counts:
        passed.dropped()
    elif failed:
        passed.failed(seconds)
    else:
        passed.succeeded(seconds)


def list_request(gateway: Gateway, config: HttpLLMConfig) -> Request:
    """A request for the list of models, in the words of the LLM's own dialect where that is known to have some."""
    provider = gateway.registry.providers[config.provider]
    name = provider.types.get(config.type or provider.default_type or "")
    dialect = None if name is None else gateway.registry.dialects[name]
    for api in () if dialect is None else dialect.apis:
        if api.operation is Operation.MODELS and "{model}" not in api.path:
            return Request(operation=Operation.MODELS, dialect=dialect, api=api, method=api.method, path=api.path)
    return Request(operation=Operation.MODELS, method="GET")
