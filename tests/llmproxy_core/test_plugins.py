"""The registry: what plugins offer, and what their mistakes do to the others."""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import attrs
import pytest

from llmproxy_core.config import structure
from llmproxy_core.dialect import Operation
from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import ConfigError
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.hookspecs import ProcessorType, ProviderType, StoreType, hookimpl
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.money import Money
from llmproxy_core.option import option
from llmproxy_core.plugins import Origin, Registry
from llmproxy_core.secret import Secret
from tests.registry import EnhanceConfig, Keeping, Plugin, never_built

CHAT = frozenset({Operation.CHAT})


async def answer(request: EndpointRequest) -> EndpointReply:
    return EndpointReply(b"{}")


def test_what_a_plugin_offers_is_found_by_name_with_its_origin() -> None:
    registry = Registry.of(Plugin())

    assert set(registry.processors) == {"openai_chat", "cost_limit", "guard"}
    assert set(registry.providers) == {"openai", "anthropic", "gemini", "mistral", "by_model", "demo"}
    assert set(registry.dialects) == {"openai"}
    assert registry.origins["processor", "guard"] == Origin(None, "tests.registry.Plugin")
    assert not registry.broken


def test_an_endpoint_is_found_by_method_and_path() -> None:
    class Ping:
        @hookimpl
        def llmproxy_endpoints(self) -> Iterable[Endpoint]:
            return [Endpoint("GET", "/ping", answer), Endpoint("POST", "/ping", answer)]

    assert set(Registry.of(Ping()).endpoints) == {"GET /ping", "POST /ping"}


def test_one_name_from_two_plugins_stops_the_start_and_names_both() -> None:
    class Second:
        @hookimpl
        def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
            return [ProcessorType(name, EnhanceConfig, never_built, CHAT) for name in ("guard", "cost_limit")]

    with pytest.raises(ConfigError) as caught:
        Registry.of(Plugin(), Second())

    assert len(caught.value.problems) == 2
    assert 'processor "guard" is registered by tests.registry.Plugin and by' in str(caught.value)
    assert "Second" in str(caught.value)


def test_a_plugin_given_twice_is_one() -> None:
    plugin = Plugin()

    assert Registry.of(plugin, plugin).processors.keys() == Registry.of(plugin).processors.keys()


@attrs.frozen(kw_only=True)
class Reserved:
    """A key that every processor has."""

    uncovered: str = option("Taken.", default="")


@attrs.frozen(kw_only=True)
class TwoShort:
    """Two keys for one config_value."""

    a: str = option("One.", default="", fills_config_value=True)
    b: str = option("Two.", default="", fills_config_value=True)


@attrs.frozen(kw_only=True)
class Unreadable:
    """A variable that no text can be read for."""

    models: tuple[str, ...] = option("Models.", default=(), env="ACME_MODELS")


@attrs.define
class Thawed:
    """Not frozen."""


@attrs.frozen(kw_only=True)
class Names:
    names: list[str] = option("Names.")


@attrs.frozen(kw_only=True)
class Listed:
    """A type that is not read, in a table of its own."""

    within: Names = option("A table.")


@attrs.frozen(kw_only=True)
class Pathed:
    file: Path = option("A file.")


Name = NewType("Name", str)


@attrs.frozen(kw_only=True)
class Readable:
    """All that an option may be."""

    name: Name = option("A type of its own.")
    level: Annotated[int, "a note"] | None = option("With a note.", default=None)
    day: datetime.date | None = option("A day.", default=None)
    tables: Mapping[str, tuple[frozenset[str], ...]] = option("Within each other.", default=FrozenMap())
    mode: Literal["a", "b"] = option("One of two.", default="a")
    operation: Operation = option("An Enum.", default=Operation.CHAT)
    limit: Money | None = option("Dollars.", default=None)
    key: Secret | None = option("A key.", default=None)
    anything: object = option("Anything.", default=None)


def test_a_plugin_may_have_options_of_every_type_that_is_read() -> None:
    plugin = processors(ProcessorType("x", Readable, never_built, CHAT))

    assert Registry.of(plugin).broken == ()


class Panic(BaseException):
    """No Exception, and with a bug in its message."""

    def __str__(self) -> str:
        raise ValueError


class Panics:
    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        raise Panic


class Raises:
    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        raise RuntimeError("no such file: a\nb")


class Exits:
    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        raise SystemExit(3)


class Yields:
    @hookimpl
    def llmproxy_processors(self) -> Iterator[ProcessorType[Any]]:
        yield ProcessorType("first", EnhanceConfig, never_built, CHAT)
        raise RuntimeError("half way")


class Misnamed:
    @hookimpl
    def llmproxy_procesors(self) -> Iterable[ProcessorType[Any]]:
        return []


def processors(*found: object) -> object:
    class Wrong:
        @hookimpl
        def llmproxy_processors(self) -> object:
            return found

    return Wrong()


def providers(*found: object) -> object:
    class Wrong:
        @hookimpl
        def llmproxy_providers(self) -> object:
            return found

    return Wrong()


def others(hook: str, *found: object) -> object:
    return type("Wrong", (), {hook: hookimpl(lambda self: found)})()


ANY: Any = object()


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Raises(), "RuntimeError: no such file: a b"),
        (Exits(), "SystemExit: 3"),
        (Yields(), "half way"),
        (Misnamed(), "llmproxy_procesors"),
        (processors("guard"), "expected a ProcessorType, got 'guard'"),
        (processors(ProcessorType("a b", EnhanceConfig, never_built, CHAT)), "'a b' is no name"),
        (processors(ProcessorType(ANY, EnhanceConfig, never_built, CHAT)), "is no name"),
        (processors(ProcessorType("x", dict, never_built, CHAT)), "made with attrs.frozen"),
        (processors(ProcessorType("x", Thawed, never_built, CHAT)), "made with attrs.frozen"),
        (processors(ProcessorType("x", Reserved, never_built, CHAT)), "keys named ['uncovered']"),
        (processors(ProcessorType("x", TwoShort, never_built, CHAT)), "more than one key"),
        (processors(ProcessorType("x", Unreadable, never_built, CHAT)), "models: a key with env must be a bool, int"),
        (processors(ProcessorType("x", EnhanceConfig, never_built, ANY)), "frozenset of Operation"),
        (processors(ProcessorType("x", EnhanceConfig, never_built, frozenset({ANY}))), "frozenset of Operation"),
        (processors(ProcessorType("x", EnhanceConfig, ANY, CHAT)), "build must be callable"),
        (providers(3), "expected a ProviderType, got 3"),
        (providers(ProviderType("x", EnhanceConfig, never_built)), "subclass of LLMConfig"),  # type: ignore[type-var]
        (providers(ProviderType("x", LLMConfig, never_built, {"chat": "openai"}, "chta")), "default_type 'chta'"),
        (providers(ProviderType("x", LLMConfig, ANY)), "build must be callable"),
        (others("llmproxy_dialects", 3), "expected a Dialect, got 3"),
        (others("llmproxy_stores", 3), "expected a StoreType, got 3"),
        (others("llmproxy_stores", StoreType("a b", EnhanceConfig, never_built)), "'a b' is no name for a store type"),
        (others("llmproxy_stores", StoreType("x", Thawed, never_built)), "made with attrs.frozen"),
        (others("llmproxy_stores", StoreType("x", EnhanceConfig, ANY)), "build must be callable"),
        (others("llmproxy_endpoints", 3), "expected an Endpoint, got 3"),
        (others("llmproxy_endpoints", Endpoint("get", "/x", answer)), "a method is in capitals"),
        (others("llmproxy_endpoints", Endpoint("GET", "x", answer)), "a path begins with /"),
        (others("llmproxy_endpoints", Endpoint("GET", "/a b", answer)), "has no spaces"),
        (others("llmproxy_endpoints", Endpoint("GET", "/\u00e9", answer)), "letters beyond ASCII"),
        (others("llmproxy_endpoints", Endpoint("GET", "/a?b", answer)), "has no spaces, ?"),
        (processors(ProcessorType("x", Listed, never_built, CHAT)), "x: within.names: a value cannot be list[str]"),
        (
            processors(ProcessorType("x", Pathed, never_built, CHAT)),
            f"x: file: a value cannot be {Path!r};",  # which has another name in Python 3.13
        ),
        (Panics(), "Panic: with a message that cannot be shown"),
    ],
)
def test_a_broken_plugin_is_named_and_takes_nobody_down(plugin: object, reason: str) -> None:
    registry = Registry.of(plugin, Plugin())

    (broken,) = registry.broken
    assert reason in broken.reason
    assert "\n" not in str(broken)
    assert broken.origin.module.startswith("tests.llmproxy_core.test_plugins")
    assert set(registry.processors) == {"openai_chat", "cost_limit", "guard"}


def test_a_hook_that_returns_no_list_is_a_mistake() -> None:
    class Text:
        @hookimpl
        def llmproxy_processors(self) -> object:
            return "guard"

    (broken,) = Registry.of(Text()).broken

    assert "a hook must return a list, not 'guard'" in broken.reason


def test_a_hook_that_forgets_to_return_is_a_mistake() -> None:
    class Forgetful:
        @hookimpl
        def llmproxy_processors(self) -> None:
            """It makes its types, and keeps them."""

    (broken,) = Registry.of(Forgetful()).broken

    assert "llmproxy_processors returned None: expected a list" in broken.reason


def test_a_plugin_without_any_hook_is_a_mistake() -> None:
    class Unmarked:
        def llmproxy_processors(self) -> list[object]:
            return []

    (broken,) = Registry.of(Unmarked()).broken

    assert "no function of it is marked with hookimpl" in broken.reason


def needing(*, llm: str = "a", processors: Iterable[str] = ()) -> dict[str, Any]:
    """A configuration with an LLM, a processor and a store of types that nobody registers, and what its route needs."""
    return {
        "llm": {"a": {"provider": "demo"}, "b": {"provider": "first"}},
        "processor": {"p": {"type": "first"}, "keeper": {"type": "keeper", "store": "s"}},
        "store": {"s": {"type": "first"}},
        "route": [{"path_prefix": "/v1", "target_llm": llm, "processors": list(processors)}],
    }


@pytest.mark.parametrize(
    ("mapping", "place"),
    [
        (needing(processors=["p"]), 'processor.p.type: no processor type "first"'),
        (needing(llm="b"), 'llm.b.provider: no provider "first"'),
        (needing(), 'store.s.type: no store type "first"'),
    ],
    ids=["processor", "LLM", "store"],
)
def test_a_type_that_is_needed_and_missing_is_told_with_the_broken_plugins(mapping: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        structure(mapping, Registry.of(Yields(), Plugin(), Keeping()), {})

    (problem,) = [it for it in caught.value.problems if str(it).startswith(place)]
    assert problem.message.endswith(
        "; plugins that could not be used: tests.llmproxy_core.test_plugins.Yields: RuntimeError: half way"
    )


def test_a_dialect_that_is_missing_is_told_with_the_broken_plugins() -> None:
    mapping = {
        "llm": {"a": {"provider": "demo"}},
        "route": [{"path_prefix": "/v1", "target_llm": "a", "dialect": "first"}],
    }

    with pytest.raises(ConfigError, match=r'no dialect "first"; registered: openai; plugins .*Yields: RuntimeError'):
        structure(mapping, Registry.of(Yields(), Plugin()), {})


def test_a_broken_plugin_takes_nothing_down_that_does_not_need_it() -> None:
    """The tables of types that are missing are left out, each with a warning, as long as nothing names them."""
    mapping = needing()
    del mapping["processor"]["keeper"]

    config, warnings = structure(mapping, Registry.of(Yields(), Plugin(), Keeping()), {})

    assert (set(config.llms), set(config.processors), set(config.stores)) == ({"a"}, set(), {"memory"})
    left_out = {it.path: it.message for it in warnings}
    assert set(left_out) == {"llm.b.provider", "processor.p.type", "store.s.type"}
    assert all("half way; nothing names this table, so it is left out" in it for it in left_out.values())


def test_a_type_that_nobody_registers_is_a_problem_where_no_plugin_is_broken() -> None:
    with pytest.raises(ConfigError) as caught:
        structure(needing(), Registry.of(Plugin(), Keeping()), {})

    assert {it.path for it in caught.value.problems} == {"llm.b.provider", "processor.p.type", "store.s.type"}


# -- installed plugins -----------------------------------------------------------------------------------------------


def distribution(directory: Path, name: str, source: str, module: str | None = None) -> None:
    """An installed distribution, as far as entry points go."""
    module = module or f"module_of_{name}"
    information = directory / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[llmproxy]\n{name} = {module}\n")
    (directory / f"{module}.py").write_text(source)


PROCESSOR = """
import attrs
from llmproxy_core.dialect import Operation
from llmproxy_core.hookspecs import ProcessorType, hookimpl


@attrs.frozen
class Config:
    pass


@hookimpl
def llmproxy_processors():
    return [ProcessorType("{name}", Config, lambda config, services: None, frozenset({{Operation.CHAT}}))]
"""


def test_installed_plugins_are_found_by_their_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "acme_good", PROCESSOR.format(name="acme"))
    distribution(tmp_path, "acme_bad", "import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))

    registry = Registry.load()

    assert registry.origins["processor", "acme"] == Origin("acme_good", "module_of_acme_good")
    (broken,) = [it for it in registry.broken if it.origin.distribution == "acme_bad"]
    assert broken.origin.module == "module_of_acme_bad"
    assert "cannot be imported (ModuleNotFoundError" in broken.reason
    assert str(broken).startswith("module_of_acme_bad of acme_bad: ")


def test_two_distributions_with_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "acme_one", PROCESSOR.format(name="acme"))
    distribution(tmp_path, "acme_two", PROCESSOR.format(name="acme"))
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match="by module_of_acme_one of acme_one and by module_of_acme_two of acme_two"):
        Registry.load()


def test_one_module_under_two_names_is_one_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "acme_three", PROCESSOR.format(name="acme"), "module_of_acme")
    distribution(tmp_path, "acme_four", PROCESSOR.format(name="acme"), "module_of_acme")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert "acme" in Registry.load().processors
