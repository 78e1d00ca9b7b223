"""Whatever stands at whichever key: a configuration, or problems that each have a place and a sentence."""

import copy
import datetime
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.config import structure
from llmproxy_core.config_path import Place
from llmproxy_core.config_tables import ProcessorTable, RouteConfig, ServerConfig, StoreTable
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.option import options
from tests.registry import DiskConfig, EnhanceConfig, KeeperConfig, LimitConfig, registry

REGISTRY = registry()

VALID: dict[str, Any] = {
    "server": {"log": {}},
    "llm": {
        "http": {
            "provider": "openai",
            "base_url": "http://127.0.0.1:1",
            "timeouts": {},
            "pool": {},
            "models": ["m"],
            "headers": {"x-a": "b"},
            "prices": {"m": {"input": 1, "output": 1, "tiers": [{"above_input_tokens": 1, "input": 1, "output": 1}]}},
        },
        "group": {"provider": "by_model", "members": ["http"]},
        "demo": {"provider": "demo"},
    },
    "processor": {
        "enhance": {"type": "openai_chat", "model": "m", "additional_config": {}},
        "limit": {"type": "cost_limit", "daily_usd": 1},
        "keeper": {
            "type": "keeper",
            "store": "disk",
            "llms": ["group"],
            "judge": {"llm": "group"},
            "judges": [{"llm": "group"}],
            "by_name": {"a": {"llm": "group"}},
        },
    },
    "store": {"disk": {"type": "disk", "path": "a", "mirror": "memory"}, "memory": {"type": "memory"}},
    "route": [{"path_prefix": "/v1", "target_llm": "group", "processors": ["enhance"], "operations": ["chat"]}],
}


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


HOSTILE: list[object] = [
    True,
    False,
    0,
    -1,
    1,
    10**30,
    -(10**30),
    10**5000,
    0.5,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "a" * 100_000,
    "\x00",
    "\x1b[2J\r\n",
    "ä\u202e💥\ud7ff",
    "-1",
    "NaN",
    "*",
    "/",
    "//",
    "%",
    "http://[",
    "http://\x00",
    "1:2:3",
    [],
    [[]],
    [""],
    ["a", "a"],
    [True],
    [{}],
    {},
    {"": ""},
    {"\x00": 1},
    {"env": 1},
    {"env": ""},
    {"env": "KEY", "x": 1},
    {"a": {"a": {"a": []}}},
    datetime.datetime(2026, 1, 1),  # noqa: DTZ001 - TOML has dates without a zone
    datetime.date(2026, 1, 1),
    datetime.time(1, 2, 3),
    deep(300),
]


def keys_of(table: object, place: Place) -> Iterator[Place]:
    """The places of everything that is written in *table*."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from keys_of(value, (*place, key))


def declared(config: type[Any], place: Place) -> Iterator[Place]:
    return ((*place, field.name) for field, _ in options(config))


def places() -> list[Place]:
    """Every key of every table, written or not, and every element that is written."""
    found: list[Place] = [*keys_of(VALID, ())]
    found += declared(ServerConfig, ("server",))
    found += declared(type(ServerConfig().log), ("server", "log"))
    found += declared(HttpLLMConfig, ("llm", "http"))
    found += [("llm", "http", "timeouts", name) for name in ("connect_s", "first_byte_s", "idle_s", "total_s")]
    found += [("llm", "http", "pool", name) for name in ("max_connections", "max_connections_per_host", "idle_s")]
    found += declared(GroupConfig, ("llm", "group"))
    found += declared(LLMConfig, ("llm", "demo"))
    found += declared(ProcessorTable, ("processor", "enhance"))
    found += declared(EnhanceConfig, ("processor", "enhance"))
    found += declared(EnhanceConfig, ("processor", "enhance", "additional_config"))
    found += declared(LimitConfig, ("processor", "limit"))
    found += declared(KeeperConfig, ("processor", "keeper"))
    found += declared(StoreTable, ("store", "disk"))
    found += declared(DiskConfig, ("store", "disk"))
    found += [("store", "\x00"), ("store", "memory", "unknown"), ("processor", "keeper", "judge", "\x1b")]
    found += declared(RouteConfig, ("route", 0))
    found += [("unknown",), ("server", "unknown"), ("llm", "\x00"), ("llm", "x" * 10_000), ("route", 0, "\x1b")]
    return list(dict.fromkeys(found))


def base(section: object) -> dict[str, Any]:
    """VALID, less the tables that *section* does not need: reading them takes most of the time."""
    if section == "llm":
        return {"llm": VALID["llm"], "route": [{"path_prefix": "/v1", "target_llm": "group"}]}
    return VALID | {"llm": {"group": {"provider": "demo"}}}


def with_value(place: Place, value: object) -> dict[str, Any]:
    document: Any = copy.deepcopy(base(place[0]))
    inner = document
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    return cast(dict[str, Any], document)


def problems_of(document: Any) -> tuple[Problem, ...] | None:
    """What is wrong; None when it is a configuration."""
    try:
        structure(document, REGISTRY, {"KEY": "secret"})
    except ConfigError as error:
        return error.problems
    return None


def assert_clear(document: Any) -> None:
    """It is a configuration, or there are problems that a person can act on."""
    problems = problems_of(document)

    assert problems is None or problems
    for problem in problems or ():
        assert problem.path
        assert problem.message
        assert str(problem).isprintable(), "control characters could rewrite a terminal"
        assert len(str(problem)) < 2_000, "a huge value was repeated"


@pytest.mark.parametrize("document", [VALID, base("llm"), base("server")], ids=["all", "llm", "others"])
def test_the_configuration_that_is_made_hostile_is_valid(document: dict[str, Any]) -> None:
    structure(document, REGISTRY, {})


@pytest.mark.repeats  # thousands of documents through the same code, which the tests of each table have measured
@pytest.mark.parametrize("place", places(), ids=lambda place: ".".join(map(str, place))[:60].encode("unicode_escape"))
def test_a_hostile_value_gives_a_clear_problem(place: Place) -> None:
    for value in HOSTILE:
        assert_clear(with_value(place, value))


@pytest.mark.parametrize("document", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_document_gives_a_clear_problem(document: object) -> None:
    assert_clear(document)


text = st.text(max_size=8)
toml = st.recursive(
    st.booleans() | st.integers() | st.floats() | text | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@given(place=st.sampled_from(places()), value=toml)
def test_any_value_gives_a_clear_problem(place: Place, value: object) -> None:
    assert_clear(with_value(place, value))


@given(tables=st.dictionaries(st.sampled_from(["server", "llm", "processor", "store", "route", "x"]), toml, max_size=4))
def test_any_document_gives_a_clear_problem(tables: dict[str, object]) -> None:
    assert_clear(tables)
