"""`[store.NAME]`: what is read, the store that needs no table, and the keys of processors that go with it."""

from typing import Any

import attrs
import pytest
import tomli

from llmproxy_core.config import Config, structure
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.hookspecs import StoreType, hookimpl
from llmproxy_core.option import option
from llmproxy_core.plugins import Registry
from tests.registry import DiskConfig, Keeping, MemoryConfig, Plugin, never_built, registry

REST = '[llm.local]\nprovider = "demo"\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "local"\n'
DISK = '[store.disk]\ntype = "disk"\npath = "a.db"\n'
KEEPER = '[processor.keeper]\ntype = "keeper"\n'
USED = 'processors = ["keeper"]\n'


def load(text: str) -> tuple[Config, tuple[Problem, ...]]:
    return structure(tomli.loads(text), registry(), {})


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_a_store_has_its_type_and_that_types_own_configuration() -> None:
    config, warnings = load(f'{KEEPER}store = "disk"\n{DISK}{REST}{USED}')

    assert config.stores["disk"].name == "disk"
    assert config.stores["disk"].type.name == "disk"
    assert config.stores["disk"].config == DiskConfig(path="a.db")
    assert not warnings
    assert hash(config) == hash(load(f'{KEEPER}store = "disk"\n{DISK}{REST}{USED}')[0])


def test_without_a_table_there_is_a_store_named_memory() -> None:
    config, warnings = load(KEEPER + REST + USED)

    assert set(config.stores) == {"memory"}
    assert config.stores["memory"].type.name == "memory"
    assert config.stores["memory"].config == MemoryConfig()
    assert not warnings, "nobody wrote it, so it may be left unused too"
    assert not load(REST)[1]


def test_a_table_named_memory_is_the_only_store_of_that_name() -> None:
    config, _ = load('[store.memory]\ntype = "disk"\npath = "a"\n' + REST)

    assert config.stores["memory"].type.name == "disk"


def test_a_wrong_table_named_memory_is_not_replaced_in_silence() -> None:
    assert set(problems('[store.memory]\ntype = "disk"\n' + KEEPER + REST + USED)) == {"store.memory.path"}


@pytest.mark.parametrize("has_stores", [True, False], ids=["with a required key", "not registered"])
def test_a_type_memory_that_cannot_be_made_of_nothing_gives_no_store(has_stores: bool) -> None:
    class Demanding:
        @hookimpl
        def llmproxy_stores(self) -> list[StoreType[Any]]:
            return [StoreType("memory", DiskConfig, never_built)] if has_stores else []

        llmproxy_processors = Keeping.llmproxy_processors

    made = Registry.of(Plugin(), Demanding())

    assert not structure(tomli.loads(REST), made, {})[0].stores
    with pytest.raises(ConfigError, match=r"processor\.keeper\.store: no \[store\.memory\]; none is defined"):
        structure(tomli.loads(KEEPER + REST + USED), made, {})


def test_a_store_that_nobody_uses_is_a_warning() -> None:
    _, warnings = load(DISK + '[store.memory]\ntype = "memory"\n' + REST)

    assert {it.path: it.message for it in warnings} == dict.fromkeys(
        ["store.disk", "store.memory"], "no processor uses this store"
    )


# (name, TOML, path of the problem, part of its message)
MISTAKES = [
    ("unknown type", '[store.x]\ntype = "dsk"', "store.x.type", 'no store type "dsk"; did you mean "disk"?'),
    ("no type", "[store.x]", "store.x.type", "missing; expected the name of a store type (registered: disk, memory)"),
    ("type is a number", "[store.x]\ntype = 3", "store.x.type", "expected the name of a store type, got 3"),
    ("key missing", '[store.x]\ntype = "disk"', "store.x.path", 'missing; expected a string such as "store.db"'),
    ("unknown key", DISK + "pth = 1", "store.disk.pth", 'unknown key; did you mean "path"?'),
    ("key of another type", '[store.x]\ntype = "memory"\npath = "a"', "store.x.path", "unknown key"),
    ("hostile name", '[store."a b"]\ntype = "memory"', 'store."a b"', "expected a name"),
    ("a value", "store.x = 3", "store.x", "expected a table [store.NAME], got 3"),
    ("no tables", 'store = "memory"', "store", 'expected tables [store.NAME], got "memory"'),
    ("section", '[stores.x]\ntype = "memory"', "stores", 'did you mean "store"?'),
]


@pytest.mark.parametrize(("text", "path", "part"), [it[1:] for it in MISTAKES], ids=[it[0] for it in MISTAKES])
def test_a_mistake_in_a_store_is_told_with_its_place(text: str, path: str, part: str) -> None:
    assert part in problems(f"{text}\n{REST}")[path]


# -- what every processor has ----------------------------------------------------------------------------------------


def test_a_processor_carries_its_time_limit_and_what_becomes_of_its_errors() -> None:
    given = load(KEEPER + 'timeout_s = 5\non_error = "pass"\n' + REST + USED)[0].processors["keeper"]
    default = load(KEEPER + REST + USED)[0].processors["keeper"]

    assert (given.timeout_s, given.on_error) == (5.0, "pass")
    assert (default.timeout_s, default.on_error) == (None, "fail")


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("timeout_s", "0", "expected a number of seconds above 0"),
        ("timeout_s", "-1", "expected a number of seconds above 0"),
        ("timeout_s", '"5s"', 'expected a number, got "5s"'),
        ("on_error", '"pas"', 'did you mean "pass"?'),
        ("on_error", "true", 'expected one of "fail", "pass", got true'),
    ],
)
def test_a_wrong_one_is_told(key: str, value: str, part: str) -> None:
    assert part in problems(f"{KEEPER}{key} = {value}\n{REST}{USED}")[f"processor.keeper.{key}"]


@pytest.mark.parametrize("key", ["timeout_s", "on_error"])
def test_they_are_no_keys_of_a_type(key: str) -> None:
    namespace = {"__annotations__": {key: str}, key: option("Taken.", default="")}
    config = attrs.frozen(type("Taken", (), namespace))
    plugin = type("Wrong", (), {"llmproxy_stores": hookimpl(lambda self: [StoreType("fine", config, never_built)])})

    assert set(Registry.of(plugin()).stores) == {"fine"}, "a store has no such key of its own"
    assert set(problems(f"{DISK}{key} = 1\n{REST}")) == {f"store.disk.{key}"}


PURSE = '[processor.keeper]\ntype = "purse"\n'


def test_what_must_be_one_for_all_workers_needs_a_store_that_they_share() -> None:
    found = problems(f"[server]\nworkers = 3\n{PURSE}{REST}{USED}")

    assert set(found) == {"processor.keeper.store"}
    assert found["processor.keeper.store"].startswith('each of the 3 workers would have a "memory" of its own')


@pytest.mark.parametrize(
    "text",
    [
        f"{PURSE}{REST}{USED}",
        f"[server]\nworkers = 1\n{PURSE}{REST}{USED}",
        f"[server]\nworkers = 3\n{KEEPER}{REST}{USED}",
        f'[server]\nworkers = 3\n{PURSE}store = "disk"\n{DISK}{REST}{USED}',
    ],
    ids=["one worker", "said so", "no need", "shared"],
)
def test_any_store_will_do_where_nothing_must_be_one_or_there_is_one_worker(text: str) -> None:
    assert not load(text)[1]
