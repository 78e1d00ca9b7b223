"""The registry: what all plugins offer, by name, checked and then unchangeable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import attrs
import pluggy

from llmproxy_core import hookspecs
from llmproxy_core.config_types import unreadable
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.endpoint import Endpoint
from llmproxy_core.errors import ConfigError, Problem, bug_words, raise_unless_bug
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.hookspecs import PROJECT, ProcessorType, ProviderType, StoreType
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.option import options

GROUP = PROJECT
"""The entry point group of plugins."""

RESERVED = frozenset({"type", "config_value", "additional_config", "uncovered", "timeout_s", "on_error"})
"""Keys of every processor's table, which a type's own cannot be named like."""

_PATH = re.compile(r"/(?:(?![?#])[!-~])*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


@attrs.frozen
class Origin:
    """Who registered something: a distribution (None when given by hand) and a module."""

    distribution: str | None
    module: str

    def __str__(self) -> str:
        return self.module if self.distribution is None else f"{self.module} of {self.distribution}"


@attrs.frozen
class BrokenPlugin:
    """A plugin that could not be used; the others are not touched by it."""

    origin: Origin
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"


@attrs.frozen
class _Plugin:
    origin: Origin
    processors: Sequence[ProcessorType[Any]] = ()
    providers: Sequence[ProviderType[Any]] = ()
    dialects: Sequence[Dialect] = ()
    stores: Sequence[StoreType[Any]] = ()
    endpoints: Sequence[Endpoint] = ()

    def entries(self) -> Iterator[tuple[str, str, object]]:
        """Everything it registers, as (kind, name, what)."""
        yield from (("processor", it.name, it) for it in self.processors)
        yield from (("provider", it.name, it) for it in self.providers)
        yield from (("dialect", it.name, it) for it in self.dialects)
        yield from (("store", it.name, it) for it in self.stores)
        yield from (("endpoint", f"{it.method} {it.path}", it) for it in self.endpoints)


@attrs.frozen(kw_only=True)
class Registry:
    """
    What can be configured: types by name. Endpoints are by "METHOD /path".

    *origins* tells who registered each, by (kind, name); *broken* are the plugins left out, each with the reason.
    """

    processors: Mapping[str, ProcessorType[Any]] = FrozenMap()
    providers: Mapping[str, ProviderType[Any]] = FrozenMap()
    dialects: Mapping[str, Dialect] = FrozenMap()
    stores: Mapping[str, StoreType[Any]] = FrozenMap()
    endpoints: Mapping[str, Endpoint] = FrozenMap()
    origins: Mapping[tuple[str, str], Origin] = FrozenMap()
    broken: tuple[BrokenPlugin, ...] = ()

    @classmethod
    def load(cls) -> Registry:
        """All installed plugins. ConfigError when two register the same name."""
        found = sorted(_with_distributions(entry_points(group=GROUP)), key=lambda it: (it[0], it[1].name))
        once = {point.value: (distribution, point) for distribution, point in found}  # two names of a module are one
        return _registry(_loaded(point, distribution or None) for distribution, point in once.values())

    @classmethod
    def of(cls, *plugins: object) -> Registry:
        """The given modules or objects with hooks, and nothing else. ConfigError when two register the same name."""
        return _registry(_asked(plugin, Origin(None, _module_name(plugin))) for plugin in _distinct(plugins))


def _with_distributions(points: Iterable[EntryPoint]) -> Iterator[tuple[str, EntryPoint]]:
    """Each with the name of its distribution, or "". All that the distribution says of itself is read for it, once."""
    names: dict[object, str] = {}
    for point in points:
        if point.dist not in names:
            names[point.dist] = point.dist.name if point.dist else ""
        yield names[point.dist], point


def _module_name(plugin: object) -> str:
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    kind = plugin if isinstance(plugin, type) else type(plugin)
    return f"{kind.__module__}.{kind.__qualname__}"


def _distinct(plugins: Iterable[object]) -> list[object]:
    return list({id(plugin): plugin for plugin in plugins}.values())


def _loaded(point: EntryPoint, distribution: str | None) -> _Plugin | BrokenPlugin:
    origin = Origin(distribution, point.module)
    try:
        plugin = point.load()
    except BaseException as error:  # noqa: BLE001 - whatever a plugin does at import, the others are to work
        raise_unless_bug(error)
        return BrokenPlugin(origin, f"cannot be imported ({bug_words(error)})")
    return _asked(plugin, origin)


def _asked(plugin: object, origin: Origin) -> _Plugin | BrokenPlugin:
    """What *plugin* answers to the hooks. It has a manager of its own, so that its mistakes are its own."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    hooks = manager.hook
    try:
        manager.register(plugin)
        manager.check_pending()
        if not manager.get_hookcallers(plugin):
            raise TypeError("no function of it is marked with hookimpl")
        return _Plugin(
            origin,
            processors=[_checked_processor(it) for it in _answers(hooks.llmproxy_processors)],
            providers=[_checked_provider(it) for it in _answers(hooks.llmproxy_providers)],
            dialects=[_checked_dialect(it) for it in _answers(hooks.llmproxy_dialects)],
            stores=[_checked_store(it) for it in _answers(hooks.llmproxy_stores)],
            endpoints=[_checked_endpoint(it) for it in _answers(hooks.llmproxy_endpoints)],
        )
    except BaseException as error:  # noqa: BLE001 - as above, for what it does when it is asked
        raise_unless_bug(error)
        return BrokenPlugin(origin, bug_words(error))


def _answers(hook: pluggy.HookCaller) -> Iterator[object]:
    results = hook()
    if len(results) < len(hook.get_hookimpls()):  # pluggy leaves out what is None
        raise TypeError(f"{hook.name} returned None: expected a list")
    for result in results:
        if isinstance(result, str | bytes) or not isinstance(result, Iterable):
            raise TypeError(f"a hook must return a list, not {result!r}")
        yield from result


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a {what}: letters, digits, _ - and .")


def _checked_dialect(found: object) -> Dialect:
    if not isinstance(found, Dialect):
        raise TypeError(f"expected a Dialect, got {found!r}")
    _check_name(found.name, "dialect")
    return found


def _checked_endpoint(found: object) -> Endpoint:
    if not isinstance(found, Endpoint):
        raise TypeError(f"expected an Endpoint, got {found!r}")
    if not _PATH.fullmatch(found.path) or not found.method.isupper():
        message = "a method is in capitals; a path begins with / and has no spaces, ?, # or letters beyond ASCII"
        raise ValueError(f"{found.method} {found.path}: {message}")
    return found


def _checked_processor(found: object) -> ProcessorType[Any]:
    if not isinstance(found, ProcessorType):
        raise TypeError(f"expected a ProcessorType, got {found!r}")
    kind: ProcessorType[Any] = found
    _check_name(kind.name, "processor type")
    _check_parts(kind)
    keys = [field.name for field, _ in options(kind.config)]
    if RESERVED & set(keys):
        raise ValueError(f"{kind.name}: keys named {sorted(RESERVED & set(keys))} are every processor's own")
    if sum(option.fills_config_value for _, option in options(kind.config)) > 1:
        raise ValueError(f"{kind.name}: more than one key is marked fills_config_value")
    if not callable(kind.extra_cost_bound):
        raise TypeError(f"{kind.name}: extra_cost_bound must be callable")
    if not isinstance(kind.operations, frozenset) or not all(isinstance(it, Operation) for it in kind.operations):
        raise TypeError(f"{kind.name}: operations must be a frozenset of Operation")
    return kind


def _checked_provider(found: object) -> ProviderType[Any]:
    if not isinstance(found, ProviderType):
        raise TypeError(f"expected a ProviderType, got {found!r}")
    kind: ProviderType[Any] = found
    _check_name(kind.name, "provider")
    _check_parts(kind)
    if not issubclass(kind.config, LLMConfig):
        raise TypeError(f"{kind.name}: its configuration class must be a subclass of LLMConfig")
    if kind.default_type is not None and kind.default_type not in kind.types:
        raise ValueError(f"{kind.name}: default_type {kind.default_type!r} is none of its types")
    return kind


def _checked_store(found: object) -> StoreType[Any]:
    if not isinstance(found, StoreType):
        raise TypeError(f"expected a StoreType, got {found!r}")
    kind: StoreType[Any] = found
    _check_name(kind.name, "store type")
    _check_parts(kind)
    if "type" in [field.name for field, _ in options(kind.config)]:
        raise ValueError(f"{kind.name}: a key named type is every store's own")
    return kind


def _check_parts(kind: ProcessorType[Any] | ProviderType[Any] | StoreType[Any]) -> None:
    for part in ("build", "warnings"):
        if not callable(getattr(kind, part)):
            raise TypeError(f"{kind.name}: {part} must be callable")
    config: object = kind.config
    if not isinstance(config, type) or not attrs.has(config) or not attrs.inspect(config).is_frozen:
        raise TypeError(f"{kind.name}: config must be a class made with attrs.frozen, not {config!r}")
    for key, it in unreadable(config):
        readable = (
            "bool, int, float, str, dates, tuple[T, ...], frozenset[T], Mapping[str, T], Literal, Enum, Secret, Money"
        )
        message = f"a value cannot be {it!r}; expected {readable}, a class made with attrs.frozen, or these or None"
        raise TypeError(f"{kind.name}: {key}: {message}")


def _registry(found: Iterable[_Plugin | BrokenPlugin]) -> Registry:
    kinds: dict[str, dict[str, Any]] = {"processor": {}, "provider": {}, "dialect": {}, "store": {}, "endpoint": {}}
    origins: dict[tuple[str, str], Origin] = {}
    broken: list[BrokenPlugin] = []
    problems: list[Problem] = []
    for plugin in found:
        if isinstance(plugin, BrokenPlugin):
            broken.append(plugin)
            continue
        for kind, name, it in plugin.entries():
            first = origins.setdefault((kind, name), plugin.origin)
            if name in kinds[kind] and kinds[kind][name] is not it:
                message = f'{kind} "{name}" is registered by {first} and by {plugin.origin}; uninstall one of them'
                problems.append(Problem("plugins", message))
            kinds[kind].setdefault(name, it)
    if problems:
        raise ConfigError(problems)
    return Registry(
        processors=FrozenMap(kinds["processor"]),
        providers=FrozenMap(kinds["provider"]),
        dialects=FrozenMap(kinds["dialect"]),
        stores=FrozenMap(kinds["store"]),
        endpoints=FrozenMap(kinds["endpoint"]),
        origins=FrozenMap(origins),
        broken=tuple(broken),
    )
