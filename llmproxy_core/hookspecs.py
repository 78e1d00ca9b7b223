"""
The hooks of a plugin.

A plugin is a module (or object) that an entry point of the group `llmproxy` names; it marks functions with `hookimpl`.
Hooks register, they do not act: each is called once in a process, when the registry is made, before any configuration
is read and before there is an event loop. None runs per request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs
import pluggy

from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.endpoint import Endpoint
from llmproxy_core.errors import Problem
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.processor import Processor
from llmproxy_core.request import Request
from llmproxy_core.services import ExtraCall, Services
from llmproxy_core.stores import Store

PROJECT = "llmproxy"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

C = TypeVar("C")
L = TypeVar("L", bound=LLMConfig)


def _no_calls(config: object, request: Request) -> Sequence[ExtraCall]:
    return ()


def _no_warnings(config: object) -> Iterable[Problem]:
    return ()


@attrs.frozen
class ProcessorType(Generic[C]):
    """
    A kind of processor: what `type = "NAME"` in a `[processor.…]` table stands for.

    *config* is a frozen attrs class whose keys are made with `option`; it is the documentation, the validation and the
    schema of the table. The key that `config_value` fills is the option with `fills_config_value`. *build* makes one
    processor for each table and gateway, synchronously; a ConfigError from it is reported to the operator.
    *operations* are those it acts on. On others it is left out of the chain when *skippable*; else a route that
    would need it there is a configuration problem, unless its table says `uncovered = "allow"`.

    *extra_cost_bound* is for a type that makes model calls of its own (`exchange.child`): the most that these may use
    for a request, so that whoever limits cost can reserve for them too. Called per request; it never raises.

    *needs_shared_store*: what it keeps in a store must be one for all workers, as what was spent; a store that each has
    its own of is then a problem where there are several.

    *warnings* gives what is doubtful about a table that is right: `Problem("daily_usd", "…")`, the path as from the
    table, "" for all of it. `llmproxy check` shows them with their lines, and the start and each reload tell them.
    Called with the configuration of each table, in use or not, whenever a file without mistakes is read; without any
    I/O. If it raises, that is a warning.
    """

    name: str
    config: type[C]
    build: Callable[[C, Services], Processor]
    operations: frozenset[Operation]
    skippable: bool = False
    extra_cost_bound: Callable[[C, Request], Sequence[ExtraCall]] = _no_calls
    needs_shared_store: bool = False
    warnings: Callable[[C], Iterable[Problem]] = _no_warnings


def _frozen(types: Mapping[str, str]) -> Mapping[str, str]:
    return FrozenMap(types)


@attrs.frozen
class ProviderType(Generic[L]):
    """
    A kind of LLM: what `provider = "NAME"` in an `[llm.…]` table stands for.

    *config* is a frozen subclass of LLMConfig (HttpLLMConfig for one that is reached over HTTP, GroupConfig for one
    that chooses among others). *types* maps the values of the table's key `type` to the names of the dialects they
    are spoken in, *default_type* is the one taken when the key is absent; a provider without such a choice has neither.
    *warnings* is as that of a ProcessorType; an LLM that is switched off is not asked about.
    """

    name: str
    config: type[L]
    build: Callable[[L, Services], LLMClient]
    types: Mapping[str, str] = attrs.field(default=FrozenMap(), converter=_frozen)
    default_type: str | None = None
    warnings: Callable[[L], Iterable[Problem]] = _no_warnings


@attrs.frozen
class StoreType(Generic[C]):
    """
    A kind of store: what `type = "NAME"` in a `[store.…]` table stands for.

    *config* is a frozen attrs class whose keys are made with `option`. *build* makes one store for each table,
    synchronously and without any I/O: a store connects when it is first asked. *shared* says that several processes
    with this configuration see the same content. *warnings* is as that of a ProcessorType.
    """

    name: str
    config: type[C]
    build: Callable[[C, Services], Store]
    shared: bool = False
    warnings: Callable[[C], Iterable[Problem]] = _no_warnings


@hookspec
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:  # type: ignore[empty-body]
    """
    The processor types of this plugin.

    Called once, when the registry is made. Return a ProcessorType for each `type` that a `[processor.…]` table may
    name. A name that another plugin has too stops the start and names both. Anything but ProcessorTypes, or an
    exception, makes the plugin broken: none of it is registered, the others work, and a configuration that misses
    something says so.
    """


@hookspec
def llmproxy_providers() -> Iterable[ProviderType[Any]]:  # type: ignore[empty-body]
    """
    The providers of this plugin.

    Called once, when the registry is made. Return a ProviderType for each `provider` that an `[llm.…]` table may name.
    Mistakes are treated as those of `llmproxy_processors`.
    """


@hookspec
def llmproxy_dialects() -> Iterable[Dialect]:  # type: ignore[empty-body]
    """
    The wire protocols this plugin speaks, to clients and to upstreams.

    Called once, when the registry is made. Return one instance of each; instances have no state. The name is what
    `dialect` of a route and `types` of a provider refer to. Mistakes are treated as those of `llmproxy_processors`.
    """


@hookspec
def llmproxy_stores() -> Iterable[StoreType[Any]]:  # type: ignore[empty-body]
    """
    The kinds of stores of this plugin.

    Called once, when the registry is made. Return a StoreType for each `type` that a `[store.…]` table may name.
    Mistakes are treated as those of `llmproxy_processors`.
    """


@hookspec
def llmproxy_endpoints() -> Iterable[Endpoint]:  # type: ignore[empty-body]
    """
    Endpoints of the proxy's own, at exact paths beside the routes.

    Called once, when the registry is made. An endpoint wins over a route that covers its path (a warning says so). Two
    with one method and path stop the start. Mistakes are treated as those of `llmproxy_processors`.
    """
