"""
Which models metrics may name.

Callers choose what they write into a request, so a label is only a name that somebody else wrote: the operator, in the
configuration, or the author of a price list. All else is `other`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import attrs

from llmproxy_core.attempt import Attempt
from llmproxy_core.errors import ProxyError, raise_unless_bug
from llmproxy_core.estimate import BILLED_OPERATIONS
from llmproxy_core.gateway import Gateway
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.option import options
from llmproxy_core.prices import ModelPrice

OTHER = "other"
_WILD = frozenset("*?[")
_LONGEST = 256
_REMEMBERED = 4096  # names are the callers' choice, so the memory of them is bounded
T = TypeVar("T")


class ModelNames:
    """The names that one gateway's metrics may use."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._targets = {route.name: route.config.target_llm for route in gateway.routes}
        self.written = frozenset(self._written())
        """Those of the configuration."""
        self._counted: dict[tuple[str, str | None, str | None], str] = {}

    def _written(self) -> Iterator[str]:
        for name, llm in self._gateway.llms.items():
            yield from llm.models.names
            yield from (sent for _, sent in llm.models.entries if sent is not None)
            yield from (it for it in [llm.models.override] if it is not None)
            yield from (it for it, _ in self._gateway.config.llms[name].prices if not _WILD & set(it))
        for processor in self._gateway.config.processors.values():
            yield from _models_of(processor.config)

    def asked(self, route: str, model: str | None) -> str | None:
        """
        What a call of *route* that asks for *model* is counted as, before anything of it is known.

        The name itself; else, where the route's LLM sends another one in its place, that; else the name of the price
        list's entry for it. None when that is not known yet: the list may still be loading.
        """
        if model in self.written and model is not None:
            return model
        llm = self._gateway.llms.get(self._targets.get(route, ""))
        if llm is None or (model is not None and len(model) > _LONGEST):
            return OTHER
        sent = llm.models.override if model is None else llm.models.sent(model)
        if sent is None:
            return OTHER
        if sent in self.written:
            return sent
        found = _at_once(_prices(llm, model))
        return None if found is None else _entry_of(found) or OTHER

    def sent(self, attempt: Attempt) -> str:
        """What *attempt* sent: the name itself, else that of the price list's entry for it."""
        model = attempt.model
        if model is None:
            return OTHER
        return model if model in self.written else self._entry(attempt) or OTHER

    def of(self, attempt: Attempt) -> str:
        """What *attempt* is counted as: what was asked of its LLM, else what that sent."""
        asked = asked_of(attempt)
        if asked is not None and asked in self.written:
            return asked
        key = (attempt.llm, asked, attempt.model)
        found = self._counted.get(key)
        if found is None:
            found = self.sent(attempt)
            if len(asked or "") <= _LONGEST:
                if len(self._counted) >= _REMEMBERED:
                    self._counted.clear()
                self._counted[key] = found
        return found

    def answered(self, model: str | None, sent: str) -> str:
        """The model that answered where *sent*, a label, was asked: its own name, as far as it may be used."""
        return model if model is not None and model in self.written else sent

    def _entry(self, attempt: Attempt) -> str | None:
        """
        The name of the price list's entry for what *attempt* sent.

        Who sent it has looked for the price, so that it is known; if not, nobody waits for it.
        """
        llm, request = self._gateway.llms.get(attempt.llm), attempt.request
        if llm is None or request is None or request.operation not in BILLED_OPERATIONS:
            return None
        if len(attempt.model or "") > _LONGEST:
            return None
        return _entry_of(_at_once(_prices(llm, asked_of(attempt))) or ())

    # -- who serves what -----------------------------------------------------------------------------------------

    def serving(self) -> Iterator[tuple[str, str]]:
        """Pairs (model, LLM): which LLMs, groups aside, can be asked for each name of the configuration."""
        for model in sorted(self.written):
            for name in sorted({it for llm in self._gateway.llms for it in self._leaves(llm, model)}):
                yield model, name

    def _leaves(self, name: str, model: str) -> Iterator[str]:
        llm, config = self._gateway.llms.get(name), self._gateway.config.llms[name]
        if llm is None:
            return
        if not isinstance(config, GroupConfig):
            if llm.models.sent(model) is not None or model == llm.models.override:
                yield name
            return
        sent = ModelMap(config.models, config.model).sent(model)
        for member in config.members if sent is not None else ():
            yield from self._leaves(member, sent or model)


def asked_of(attempt: Attempt) -> str | None:
    """The model that was asked of its LLM, with what processors made of it."""
    try:
        return None if attempt.request is None else attempt.request.model
    except ProxyError:  # what a processor made of it cannot be read
        return None


def _models_of(config: object) -> Iterator[str]:
    """
    The models that the table of a processor names: what its keys `model` and `models` say.

    By the names of the keys, since a plugin's table may have any. Whatever they hold, it is the operator who wrote it.
    """
    if not attrs.has(type(config)):
        return
    for field, _ in options(type(config)):
        if field.name in ("model", "models"):
            said = getattr(config, field.name)
            names = [said] if isinstance(said, str) else said if isinstance(said, Iterable) else ()
            yield from (it for it in names if isinstance(it, str) and not _WILD & set(it))


def _entry_of(found: Sequence[ModelPrice | None]) -> str | None:
    """The name of a price list's first entry of *found*; a pattern is none."""
    entry = next(iter(found), None)
    return None if entry is None or _WILD & set(entry.name) else entry.name


async def _prices(llm: LLMClient, model: str | None) -> Sequence[ModelPrice | None]:
    return await llm.prices(model)


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T | None:
    """What *coroutine* gives, if it need not wait; else None, and it is not run any further."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    except BaseException as bug:  # noqa: BLE001 - an LLM of a plugin's that cannot say its prices; its calls tell of that
        raise_unless_bug(bug)
        return None
    coroutine.close()
    return None
