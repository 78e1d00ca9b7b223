"""The LLM around another one: faults below retries and groups."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_chaos.broken_stream import broken
from llmproxy_chaos.config import ChaosLLMConfig, require_a_fault, require_one_member
from llmproxy_chaos.course import Course
from llmproxy_chaos.dice import Dice, Plan
from llmproxy_chaos.processor import break_reply
from llmproxy_chaos.tally import Tally
from llmproxy_core import (
    Attempt,
    Exchange,
    LLMClient,
    ModelMap,
    ModelPrice,
    Reply,
    Response,
    RouteNotFound,
    Services,
    UpstreamConnectError,
    UpstreamError,
)


class ChaosLLM:
    """Sends each exchange to its one member, and lets faults befall a share of them."""

    def __init__(self, config: ChaosLLMConfig, services: Services, dice: Dice, tally: Tally) -> None:
        self._config = config
        self._member_name = require_one_member(config)
        self._services = services
        self._dice = dice
        self._tally = tally
        self._own = ModelMap(config.models, config.model)

    @property
    def _member(self) -> LLMClient:
        return self._services.llm(self._member_name)  # all LLMs are there once a call is served, not before

    @property
    def models(self) -> ModelMap:
        """Its own list, else its member's."""
        return self._own if self._config.models else self._member.models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        sent = self._config.model if model is None else self._own.sent(model)
        return () if sent is None and model is not None else await self._member.prices(sent)

    async def send(self, exchange: Exchange) -> Response:
        request = exchange.request
        sent = self._sent(request.model)
        course = Course(exchange, Plan.of(self._config.faults, self._dice.throw()), self._tally)
        try:
            if sent is not None and sent != request.model:
                exchange.request = request.with_model(sent)
            await self._before(exchange, course, sent)
            first = len(exchange.attempts)
            response = await self._member.send(exchange)
            if course.is_clear:
                return response
            if isinstance(response, Reply):
                await break_reply(response, course)
                return response
            attempt = _answered_by(response.llm, exchange.attempts[first:])
            return broken(response, course, exchange, attempt, self._services.tasks)
        finally:
            exchange.request = request  # whoever tries another LLM next asks it for what the caller asked

    def _sent(self, asked: str | None) -> str | None:
        sent = self._config.model if asked is None else self._own.sent(asked)
        if sent is None and asked is not None:
            raise RouteNotFound(f"No LLM here serves the model {asked[:128]!r}", code="model_not_found", param="model")
        return sent

    async def _before(self, exchange: Exchange, course: Course, sent: str | None) -> None:
        """What befalls the call before its member is asked; a failure is an attempt as any other."""
        if not course.before:
            return
        attempt = exchange.attempt(self._config.name, sent)
        try:
            for strike in course.before:
                await course.befall(strike)
        except BaseException as error:
            exchange.attempts.append(attempt)  # also of a caller that did not wait: it was this LLM that it left
            if isinstance(error, UpstreamError):
                _note(attempt, error, exchange.clock())
            raise

    async def aclose(self) -> None:
        """Its member is an LLM of its own."""


def _note(attempt: Attempt, error: UpstreamError, now: float) -> None:
    """Tell *attempt* of a failure what an LLM would know: it was sent once there was a connection, and answered."""
    attempt.status = error.upstream_status
    if not isinstance(error, UpstreamConnectError):
        attempt.sent_s = attempt.started_s
    if attempt.status is not None:
        attempt.headers_s = now
    attempt.failed(error, now)


def _answered_by(llm: str, attempts: Sequence[Attempt]) -> Attempt | None:
    """The last of *attempts* that was made of *llm*: of a group, the one that gave the answer."""
    return next((it for it in reversed(attempts) if it.llm == llm), None)


def build_llm(config: ChaosLLMConfig, services: Services) -> ChaosLLM:
    """ConfigError for a table without any fault, or with several members."""
    require_a_fault(config.faults)
    require_one_member(config)
    dice = services.kept(config, lambda: Dice(config.seed))
    return ChaosLLM(config, services, dice, Tally(config.faults, services))
