"""The LLMs of a group."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.group_config import GroupConfig
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.prices import ModelPrice
from llmproxy_core.services import Services


class Members:
    """Those that a table names, looked up when they are first needed: a group is built before all of them are."""

    def __init__(self, config: GroupConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self._own = ModelMap(config.models, config.model)
        self.as_asked = not config.models and config.model is None
        """Whether members are asked for whatever model the caller asks for."""
        self._union: ModelMap | None = None
        self._llms: list[LLMClient] | None = None

    @property
    def llms(self) -> Sequence[LLMClient]:
        """In the order of the table."""
        if self._llms is None:
            self._llms = [self._services.llm(name) for name in self._config.members]
        return self._llms

    def llm(self, name: str) -> LLMClient:
        """Any configured LLM."""
        return self._services.llm(name)

    @property
    def models(self) -> ModelMap:
        """The group's own list, else the members' names and globs together."""
        if self._config.models:
            return self._own
        if self._union is None:
            entries: dict[str, None] = {}
            for member in self.llms:
                entries.update((asked, None) for asked, _ in member.models.entries)
            if entries and not all(member.models.listed for member in self.llms):
                entries["*"] = None
            self._union = ModelMap(tuple(entries.items()))
        return self._union

    def sent(self, asked: str | None) -> str | None:
        """The model that members are asked for where the caller asks for *asked*; None: none, or one not served."""
        return self._own.sent(asked) if asked is not None else self._config.model

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        """Of whatever any member may send for *model*, and those that are asked after a kind of failure."""
        sent = self.sent(model)
        if sent is None and model is not None:
            return ()
        by_kind = set(self._config.named()) - set(self._config.members)
        asked = [*self.llms, *map(self.llm, sorted(by_kind))]
        return [price for llm in asked for price in await llm.prices(sent)]
