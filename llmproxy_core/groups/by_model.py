"""An LLM that picks among others by the model that the request names."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.errors import BadRequest, RouteNotFound
from llmproxy_core.exchange import Exchange
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.groups.members import Members
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.response import Response
from llmproxy_core.services import Services

_REMEMBERED = 1024  # names are the callers' choice, so the memory of them is bounded


class ByModel:
    """
    Picks among its members by the model that the request names.

    A member that has the very name written out counts first, then globs, then members without a list; among equals,
    the order of `members`. Its own `models` map is applied before the choice, its `model` override too.
    """

    def __init__(self, config: GroupConfig, services: Services) -> None:
        self._config = config
        self._members = Members(config, services)
        self._picked: dict[str, LLMClient | None] = {}

    @property
    def models(self) -> ModelMap:
        """Its own list, else the members' names and globs together."""
        return self._members.models

    def pick(self, asked: str) -> LLMClient | None:
        """The member that serves *asked*."""
        if asked not in self._picked:
            if len(self._picked) >= _REMEMBERED:
                self._picked.clear()
            self._picked[asked] = self._choose(asked)
        return self._picked[asked]

    def _choose(self, asked: str) -> LLMClient | None:
        serving = [member for member in self._members.llms if member.models.sent(asked) is not None]
        for member in serving:
            if member.models.exactly(asked):
                return member
        listed = [member for member in serving if member.models.listed]
        return next(iter(listed or serving), None)

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        sent = self._members.sent(model)
        member = None if sent is None else self.pick(sent)
        return () if member is None else await member.prices(sent)

    async def send(self, exchange: Exchange) -> Response:
        asked = exchange.request.model
        if asked is None and self._config.model is None:
            raise BadRequest("The request names no model, and one is needed to choose an LLM", param="model")
        sent = self._members.sent(asked)
        member = None if sent is None else self.pick(sent)
        if member is None or sent is None:
            raise RouteNotFound(
                f"No LLM here serves the model {(asked or '')[:128]!r}", code="model_not_found", param="model"
            )
        request = exchange.request
        try:
            if sent != asked:
                exchange.request = request.with_model(sent)
            return await member.send(exchange)
        finally:
            exchange.request = request  # whoever tries another LLM next asks it for what the caller asked

    async def aclose(self) -> None:
        """Its members are LLMs of their own."""
