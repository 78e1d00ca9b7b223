"""What a type finds doubtful about its tables is a warning; a mistake of its own is one, too, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pytest
import tomli

from llmproxy_core.config import structure
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.hookspecs import ProcessorType, ProviderType, StoreType, hookimpl
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.option import option
from llmproxy_core.plugins import Registry
from tests.registry import Keeping, Plugin, never_built

Doubts = Callable[[Any], Iterable[Problem]]

TEXT = """
[llm.a]
provider = "odd"
[llm.off]
provider = "odd"
enabled = false
[processor.p]
type = "odd"
additional_config.size = 9
[store.s]
type = "odd"
[[route]]
path_prefix = "/v1"
target_llm = "a"
processors = ["p"]
"""


@attrs.frozen
class Config:
    """Anything."""

    size: int = option("How many.", default=1)


@attrs.frozen
class Odd:
    """Registers one type of each kind, all with the same doubts."""

    doubts: Doubts

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        return [ProcessorType("odd", Config, never_built, frozenset(), skippable=True, warnings=self.doubts)]

    @hookimpl
    def llmproxy_providers(self) -> Iterable[ProviderType[Any]]:
        return [ProviderType("odd", LLMConfig, never_built, warnings=self.doubts)]

    @hookimpl
    def llmproxy_stores(self) -> Iterable[StoreType[Any]]:
        return [StoreType("odd", Config, never_built, warnings=self.doubts)]


def warnings(doubts: Doubts, text: str = TEXT) -> list[tuple[str, str]]:
    """What is told, but that nothing uses the store."""
    registry = Registry.of(Plugin(), Keeping(), Odd(doubts))
    assert registry.broken == ()
    _, found = structure(tomli.loads(text), registry, {})
    return [(it.path, it.message) for it in found if "uses this store" not in it.message]


def test_each_table_that_is_switched_on_is_asked_about_and_told_of_at_its_place() -> None:
    asked: list[object] = []

    def doubts(config: object) -> Iterable[Problem]:
        asked.append(config)
        return [Problem("size", "it is odd"), Problem("", "all of it\nis odd")]

    assert warnings(doubts) == [
        (f"{table}{key}", message)
        for table in ("llm.a", "processor.p", "store.s")
        for key, message in ((".size", "it is odd"), ("", "all of it is odd"))
    ]
    llm, *others = asked
    assert isinstance(llm, LLMConfig)
    assert llm.name == "a"
    assert others == [Config(size=9), Config()]


def raises(config: object) -> Iterable[Problem]:
    raise ZeroDivisionError("a bug")


def says_half(config: object) -> Iterable[Problem]:
    yield Problem("size", "it is odd")
    raise ZeroDivisionError("a bug")


def gives_text(config: object) -> Any:
    return ["it is odd"]


def gives_nothing(config: object) -> Any:
    return None


@pytest.mark.parametrize("doubts", [raises, says_half, gives_text, gives_nothing])
def test_a_bug_in_it_is_a_warning_that_names_the_plugin(doubts: Doubts) -> None:
    found = warnings(doubts)

    assert [path for path, _ in found] == ["llm.a", "processor.p", "store.s"]
    for _, message in found:
        assert message.startswith("tests.llmproxy_core.test_config_warnings.Odd could not look for what is doubtful (")


def test_of_a_file_with_mistakes_no_type_is_asked() -> None:
    def doubts(config: object) -> Iterable[Problem]:
        raise AssertionError("a table that is wrong is nothing to have doubts about")

    with pytest.raises(ConfigError, match="size"):
        warnings(doubts, TEXT.replace("size = 9", 'size = "9"'))


def test_a_type_whose_warnings_cannot_be_called_is_refused() -> None:
    registry = Registry.of(Odd("none"))  # type: ignore[arg-type]

    assert [it.reason for it in registry.broken] == ["TypeError: odd: warnings must be callable"]


def test_a_processor_that_a_route_lists_twice_is_told_of_at_its_second_place() -> None:
    def none(config: object) -> Iterable[Problem]:
        return ()

    assert warnings(none, TEXT.replace('["p"]', '["p", "p"]')) == [
        ("route[1].processors[2]", '"p" is listed twice: it acts twice on each call')
    ]
