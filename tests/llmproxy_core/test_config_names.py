"""Options that name other tables: what stands for nothing is told where it is written, what is named is used."""

from typing import Any

import attrs
import pytest
import tomli

from llmproxy_core.config import structure
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.hookspecs import ProcessorType, hookimpl
from llmproxy_core.option import option
from llmproxy_core.plugins import Registry
from tests.registry import JudgeConfig, Plugin, never_built, registry

LOCAL = '[llm.local]\nprovider = "demo"\n'
OFF = '[llm.off]\nprovider = "demo"\nenabled = false\n'
ROUTE = '[[route]]\npath_prefix = "/v1"\ntarget_llm = "local"\nprocessors = ["keeper"]\n'


def read(keys: str, others: str = "") -> tuple[Problem, ...]:
    """The warnings of a configuration whose processor `keeper` has *keys*."""
    text = f'[processor.keeper]\ntype = "keeper"\n{keys}\n{others}{LOCAL}{ROUTE}'
    return structure(tomli.loads(text), registry(), {})[1]


def problems(keys: str, others: str = "") -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(keys, others)
    return {problem.path: problem.message for problem in caught.value.problems}


# (name, keys of the processor, path below it, what is told)
UNKNOWN = [
    ("store", 'store = "memry"', "store", 'no [store.memry]; did you mean "memory"? (defined: memory)'),
    ("in an array", 'llms = ["local", "locl"]', "llms[2]", 'no [llm.locl]; did you mean "local"? (defined: local)'),
    ("processor", 'before = "keepr"', "before", 'no [processor.keepr]; did you mean "keeper"? (defined: keeper)'),
    ("in a table", 'judge.llm = "x"', "judge.llm", "no [llm.x]; defined: local"),
    ("in a table of an array", 'judges = [{ llm = "local" }, { llm = "x" }]', "judges[2].llm", "no [llm.x]"),
    ("in a table by name", 'by_name."a.b".llm = "x"', 'by_name."a.b".llm', "no [llm.x]"),
    ("in additional_config", 'additional_config.store = "x"', "additional_config.store", "no [store.x]"),
    ("deep in it", 'additional_config.judges = [{ llm = "x" }]', "additional_config.judges[1].llm", "no [llm.x]"),
    ("empty", 'llms = [""]', "llms[1]", "no [llm.]"),
]


@pytest.mark.parametrize(("keys", "path", "part"), [it[1:] for it in UNKNOWN], ids=[it[0] for it in UNKNOWN])
def test_a_name_that_stands_for_nothing_is_told_where_it_is_written(keys: str, path: str, part: str) -> None:
    found = problems(keys)

    assert set(found) == {f"processor.keeper.{path}"}
    assert part in found[f"processor.keeper.{path}"]


@attrs.frozen(kw_only=True)
class AskConfig:
    """An LLM, written short."""

    llm: str = option("The LLM.", refers_to="llm", fills_config_value=True)


class Asking:
    @hookimpl
    def llmproxy_processors(self) -> list[ProcessorType[Any]]:
        return [ProcessorType("ask", AskConfig, never_built, frozenset(Operation))]


def test_a_name_written_as_config_value_is_told_there() -> None:
    text = '[processor.keeper]\ntype = "ask"\nconfig_value = "locl"\n' + LOCAL + ROUTE

    with pytest.raises(ConfigError) as caught:
        structure(tomli.loads(text), Registry.of(Plugin(), Asking()), {})

    assert [str(it) for it in caught.value.problems] == [
        'processor.keeper.config_value: no [llm.locl]; did you mean "local"? (defined: local)'
    ]


@attrs.frozen(kw_only=True)
class UsualConfig:
    """Names that are there without being written."""

    llm: str = option("The LLM.", default="usual", refers_to="llm")
    judge: JudgeConfig = option("A table.", default=JudgeConfig(llm="judge"))


class Usual:
    @hookimpl
    def llmproxy_processors(self) -> list[ProcessorType[Any]]:
        return [ProcessorType("usual", UsualConfig, never_built, frozenset(Operation))]


def test_a_default_is_looked_up_too_and_uses_what_it_names() -> None:
    text = '[processor.keeper]\ntype = "usual"\n' + LOCAL + ROUTE
    registered = Registry.of(Plugin(), Usual())
    named = "".join(f'[llm.{name}]\nprovider = "demo"\n' for name in ("usual", "judge"))

    with pytest.raises(ConfigError) as caught:
        structure(tomli.loads(text), registered, {})

    assert {it.path for it in caught.value.problems} == {"processor.keeper.llm", "processor.keeper.judge.llm"}
    assert not structure(tomli.loads(named + text), registered, {})[1]


def test_an_llm_that_is_switched_off_is_as_wrong_as_in_a_route() -> None:
    found = problems('llms = ["off"]\njudge.llm = "off"', OFF)

    assert found == dict.fromkeys(
        ["processor.keeper.llms[1]", "processor.keeper.judge.llm"], "[llm.off] is switched off (enabled = false)"
    )


def test_a_store_may_name_another() -> None:
    store = '[store.disk]\ntype = "disk"\npath = "a"\nmirror = '

    assert problems('store = "disk"', f'{store}"dsk"\n') == {
        "store.disk.mirror": 'no [store.dsk]; did you mean "disk"? (defined: disk, memory)'
    }
    assert not read('store = "disk"', f'{store}"memory"\n')


def test_another_mistake_of_the_table_hides_no_name() -> None:
    found = problems('store = "x"\nttl_s = "long"\nllms = [3, "y"]\nunknown = 1')

    assert set(found) == {f"processor.keeper.{key}" for key in ("store", "ttl_s", "llms[1]", "llms[2]", "unknown")}


@pytest.mark.parametrize("keys", ["store = 3", 'store = ["x"]', 'llms = "x"', "llms = [3]", "judge = 3", "judges = 3"])
def test_what_is_no_name_at_all_is_one_mistake(keys: str) -> None:
    assert len(problems(keys)) == 1


def test_a_table_with_a_mistake_is_no_missing_table() -> None:
    assert set(problems('store = "disk"', '[store.disk]\ntype = "disk"\n')) == {"store.disk.path"}


def test_what_a_processor_names_is_used() -> None:
    others = '[llm.a]\nprovider = "demo"\n[llm.b]\nprovider = "demo"\n[processor.other]\ntype = "keeper"\n'

    assert not read('llms = ["a"]\njudges = [{ llm = "b" }]\nbefore = "other"', others)
    assert {it.path for it in read("", others)} == {"llm.a", "llm.b", "processor.other"}


def test_text_that_happens_to_be_the_name_of_an_llm_does_not_use_it() -> None:
    (warning,) = read('label = "other"', '[llm.other]\nprovider = "demo"\n')

    assert warning.path == "llm.other"
