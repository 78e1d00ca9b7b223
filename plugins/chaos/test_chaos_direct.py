"""The LLM around another one, without a server: a processor's own calls, and waits that end early."""

from __future__ import annotations

import asyncio

import pytest
from llmproxy_chaos import ChaosLLMConfig, Faults
from llmproxy_chaos.faults import ErrorAnswer, Latency, NoConnection, TimedOut
from llmproxy_chaos.llm import build_llm

from llmproxy_core import Exchange, Request, Tasks, UpstreamAuthError, UpstreamError
from llmproxy_core.testing import FakeClock, ScriptedLLM, scripted_services
from tests.llmproxy_core.conversation import CHAT, DIALECT, own_request, question


class Direct:
    """The wrapper of an LLM that is never asked, without a server."""

    def __init__(self, faults: Faults) -> None:
        self.tasks, self.clock = Tasks(), FakeClock()
        self.member = ScriptedLLM([], dialect=DIALECT, api=CHAT, tasks=self.tasks)
        config = ChaosLLMConfig(name="flaky", provider="chaos", members=("scripted",), faults=faults)
        self.llm = build_llm(config, scripted_services(self.member, tasks=self.tasks))

    def exchange(self, request: Request | None = None, *, within_s: float | None = None) -> Exchange:
        request = request or Request(operation=CHAT.operation, dialect=DIALECT, api=CHAT, body=question())
        deadline_s = None if within_s is None else self.clock() + within_s
        return Exchange(request, id="1", route="/v1", tasks=self.tasks, clock=self.clock, deadline_s=deadline_s)

    async def fail(self, exchange: Exchange) -> UpstreamError:
        """What the call fails with."""
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(self.llm.send(exchange), 10)
        assert self.member.requests == []
        return raised.value


# -- a processor's own calls -----------------------------------------------------------------------------------------


async def test_the_fault_of_a_call_within_a_call_is_told_by_the_outer_one() -> None:
    direct = Direct(Faults(connect=NoConnection(share=1)))

    async with direct.exchange() as exchange, exchange.child(own_request()) as child:
        await direct.fail(child)

    assert exchange.log_fields["chaos"] == ["connect"]
    assert "chaos" not in child.log_fields


async def test_the_error_of_a_call_within_a_call_is_that_of_its_clients_protocol() -> None:
    direct = Direct(Faults(error=ErrorAnswer(share=1, status=401)))

    async with direct.exchange() as exchange, exchange.child(own_request()) as child:
        error = await direct.fail(child)

    assert isinstance(error, UpstreamAuthError)


async def test_a_call_without_any_client_fails_with_the_status() -> None:
    direct = Direct(Faults(error=ErrorAnswer(share=1, status=429, retry_after_s=3)))

    async with direct.exchange(own_request()) as exchange:
        error = await direct.fail(exchange)

    assert (error.status, error.upstream_status, error.retry_after_s) == (429, 429, 3)


# -- time ------------------------------------------------------------------------------------------------------------


async def test_a_wait_ends_with_the_deadline_of_the_call() -> None:
    direct = Direct(Faults(latency=Latency(share=1, ms=3_600_000)))

    async with direct.exchange(within_s=0.02) as exchange:
        error = await direct.fail(exchange)

    (attempt,) = exchange.attempts
    assert error.code == "deadline_exceeded"
    assert attempt.error is error


async def test_a_wait_that_ends_before_the_deadline_is_as_long_as_it_was_drawn() -> None:
    direct = Direct(Faults(timeout=TimedOut(share=1, ms=10)))

    async with direct.exchange(within_s=60) as exchange:
        error = await direct.fail(exchange)

    assert error.code == "upstream_timeout_first_byte"


async def test_a_call_that_is_given_up_in_a_wait_leaves_its_attempt() -> None:
    direct = Direct(Faults(latency=Latency(share=1, ms=3_600_000)))

    async with direct.exchange() as exchange:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(direct.llm.send(exchange), 0.05)

    (attempt,) = exchange.attempts
    assert (attempt.llm, attempt.error) == ("flaky", None)
