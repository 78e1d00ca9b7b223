"""The example, the reference and the schema say what the code says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli

from llmproxy_core.config_tables import (
    LogConfig,
    ProcessorTable,
    RouteConfig,
    ServerConfig,
    StoreTable,
    TelemetryConfig,
)
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.hookspecs import ProcessorType, StoreType
from llmproxy_core.llm_config import HttpLLMConfig, PoolTable, TimeoutsTable
from llmproxy_core.option import options
from llmproxy_core.plugins import Registry
from llmproxy_core.price_config import PriceTable, ServiceTierTable, TierTable
from llmproxy_server.demo import DemoConfig
from llmproxy_server.embedded import KNOWN_PROVIDERS, embedded_config
from llmproxy_server.loader import load
from llmproxy_server.variables import LLM_VARIABLES, SERVER_VARIABLES, TELEMETRY_VARIABLES, option_variables
from tests.registry import registry
from tests.schema import mistakes, written_out
from tools.configuration_docs import DOCS, SCHEMA, own_part, own_registry, reference, schema

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "config.example.toml"
CLASSES: list[type[Any]] = [
    ServerConfig,
    LogConfig,
    TelemetryConfig,
    HttpLLMConfig,
    GroupConfig,
    DemoConfig,
    TimeoutsTable,
    PoolTable,
    PriceTable,
    ServiceTierTable,
    TierTable,
    ProcessorTable,
    StoreTable,
    RouteConfig,
]


OWN = own_part(Registry.load())
TYPES: list[ProcessorType[Any] | StoreType[Any]] = [*OWN.processors.values(), *OWN.stores.values()]
"""The types whose tables have keys of their own."""
VARIABLES = [variable.name for variable in SERVER_VARIABLES + TELEMETRY_VARIABLES + LLM_VARIABLES]
OPTION_VARIABLES = [variable.name for kind in TYPES for variable in option_variables(kind.config)]


def everything() -> dict[str, Any]:
    """The example with every key that it shows set."""
    return tomli.loads(uncommented(EXAMPLE.read_text()))


def uncommented(text: str) -> str:
    return re.sub(r"^#(?=[^\s:]|    \S)", "", text, flags=re.MULTILINE)


def keys(config: type[Any]) -> set[str]:
    return {field.name for field, _ in options(config)}


def test_the_example_loads_without_any_key_and_its_target_is_the_demo() -> None:
    found = load(EXAMPLE, Registry.load(), {})

    assert {name for name, llm in found.config.llms.items() if llm.enabled} == {"demo", "default"}
    assert [route.target_llm for route in found.config.routes] == ["default"]
    assert [it.path for it in found.warnings] == ["server.cors_allowed_origins"], (
        "the warning that its comment announces"
    )


def test_the_example_shows_every_key_of_every_section() -> None:
    shown = everything()
    llms = shown["llm"]
    prices = llms["openai"]["prices"]["example-long"]

    assert set(shown["server"]) == keys(ServerConfig)
    assert set(shown["server"]["log"]) == keys(LogConfig)
    assert set(shown["telemetry"]) == keys(TelemetryConfig)
    assert set(llms["openai"]) == keys(HttpLLMConfig)
    assert set(llms["openai"]["timeouts"]) == keys(TimeoutsTable)
    assert set(llms["openai"]["pool"]) == keys(PoolTable)
    assert set(prices) == keys(PriceTable)
    assert set(prices["tiers"][0]) <= keys(TierTable)
    assert keys(TierTable) - keys(PriceTable) <= set(prices["tiers"][0])
    assert set(prices["service_tiers"]["priority"]) <= keys(ServiceTierTable)
    assert set(llms["demo"]) | set(llms["openai"]) >= keys(DemoConfig)
    assert set(llms["default"]) | set(llms["openai"]) >= keys(GroupConfig)
    assert set(shown["processor"]["enhance_query"]) >= keys(ProcessorTable)
    assert set(shown["store"]["memory"]) == keys(StoreTable)
    assert set(shown["route"][0]) == keys(RouteConfig)


def test_the_example_shows_every_type_of_processor_with_all_its_keys() -> None:
    shown = everything()["processor"]

    for kind in OWN.processors.values():
        table = next(it for it in shown.values() if OWN.processors[it["type"]].config is kind.config)
        given = {**table, **table.get("additional_config", {})}
        for field, key in options(kind.config):
            is_given = field.name in given or (key.fills_config_value and "config_value" in given)
            assert is_given, f"{kind.name}.{field.name}"
            if key.example is None and isinstance(field.default, bool | int | float | str):
                assert given.get(field.name, field.default) == field.default, f"{kind.name}.{field.name}"


def test_the_processors_of_the_example_can_be_used_as_they_stand(tmp_path: Path) -> None:
    names = sorted(everything()["processor"])
    before, heading, rest = EXAMPLE.read_text().partition(f"# {'-' * 64} processors")
    tables, routes_heading, routes = rest.partition(f"# {'-' * 64} routes")
    routes = routes.replace("processors = []", f"processors = {json.dumps(names)}")
    used = before + heading + uncommented(tables) + routes_heading + routes
    (tmp_path / "config.toml").write_text(used)

    found = load(tmp_path / "config.toml", Registry.load(), {})

    assert not list(mistakes(json.loads(SCHEMA.read_text()), tomli.loads(used)))
    assert sorted(found.config.processors) == names
    assert sorted(found.config.routes[0].processors) == names


def test_the_example_shows_defaults_as_they_are() -> None:
    """A key that is commented out, and is no example, stands at its default."""
    shown, given = everything(), tomli.loads(EXAMPLE.read_text())

    for config, table, set_keys in [
        (ServerConfig, shown["server"], given["server"]),
        (LogConfig, shown["server"]["log"], given["server"]["log"]),
        (RouteConfig, shown["route"][0], given["route"][0]),
        (DemoConfig, shown["llm"]["demo"], given["llm"]["demo"]),
        (TimeoutsTable, shown["llm"]["openai"]["timeouts"], {}),
        (PoolTable, shown["llm"]["openai"]["pool"], {}),
    ]:
        for field, _ in options(config):
            if (
                field.name in table
                and field.name not in set_keys
                and isinstance(field.default, bool | int | float | str)
            ):
                assert table[field.name] == field.default, field.name


def test_the_example_is_valid_by_the_schema_that_it_refers_to() -> None:
    assert EXAMPLE.read_text().splitlines()[0] == f"#:schema ./{SCHEMA.name}"
    assert not list(mistakes(json.loads(SCHEMA.read_text()), tomli.loads(EXAMPLE.read_text())))


def test_the_reference_and_the_schema_are_not_stale() -> None:
    registry = own_registry()

    assert DOCS.read_text() == reference(registry), "run tools/configuration_docs.py"
    assert SCHEMA.read_text() == schema(registry), "run tools/configuration_docs.py"


@pytest.mark.parametrize("config", CLASSES)
def test_every_key_is_documented(config: type[Any]) -> None:
    text = DOCS.read_text()

    for field, declared in options(config):
        assert declared.doc.endswith("."), f"{field.name}: a sentence"
        assert re.search(rf"^\| `[\w.\[\]]*\b{field.name}` \|", text, flags=re.MULTILINE), field.name


def places(schema: Any, place: str = "") -> Iterator[str]:
    """Where the keys of *schema* stand, as the reference writes it; `{ env = … }` of a secret is one value."""
    for name, inner in schema.get("properties", {}).items():
        yield (key := f"{place}.{name}".removeprefix("."))
        if set(inner.get("properties", ())) != {"env"}:
            yield from places(inner, key)
    for below, inner in [(".NAME", schema.get("additionalProperties")), ("[]", schema.get("items"))]:
        if isinstance(inner, dict) and set(inner.get("properties", ())) != {"env"}:
            yield from places(inner, place + below)
    for inner in schema.get("anyOf", ()):
        if set(inner.get("properties", ())) != {"env"}:
            yield from places(inner, place)


def documented(*headings: str) -> set[str]:
    """The keys in the tables below *headings* of the reference, up to the next heading of any level."""
    sections = re.split(r"^#+ (.*)$", DOCS.read_text(), flags=re.MULTILINE)
    texts = [text for heading, text in zip(sections[1::2], sections[2::2], strict=True) if heading in headings]
    assert len(texts) == len(headings), headings
    return {key for text in texts for key in re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)}


def heading_of(section: str, name: str) -> str:
    """The heading below which the keys of a type are."""
    _, _, text = DOCS.read_text().partition(f"\n## [{section}.NAME]\n")
    key = "provider" if section == "llm" else "type"
    found = re.search(rf'^### ({key} = .*"{name}".*)$', text, flags=re.MULTILINE)
    assert found is not None, f"{section} {name}"
    return found[1]


def test_every_key_that_the_schema_knows_is_in_the_reference_where_it_belongs() -> None:
    known: dict[str, Any] = written_out(json.loads(SCHEMA.read_text()))["properties"]
    shared = {
        "llm": ["[llm.NAME]", "LLMs over HTTP", "Groups"],
        "processor": ["[processor.NAME]"],
        "store": ["[store.NAME]"],
    }

    assert set(places(known["server"])) == documented("[server]")
    assert set(places(known["telemetry"])) == documented("[telemetry]")
    assert set(places(known["route"]["items"])) == documented("[[route]]")
    for section, headings in shared.items():
        for kind in known[section]["additionalProperties"]["allOf"]:
            [name] = [it["const"] for it in kind["if"]["properties"].values()]
            below = documented(*headings, heading_of(section, name))
            missing = {it for it in places(kind["then"]) if it.removeprefix("additional_config.") not in below}
            assert missing == set(), f"{section} {name}"


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_every_key_of_a_type_is_documented_under_its_name(kind: ProcessorType[Any] | StoreType[Any]) -> None:
    heading = rf'^### type = .*"{kind.name}".*$'
    section = re.split(heading, DOCS.read_text(), flags=re.MULTILINE)[1].partition("\n#")[0]

    for field, declared in options(kind.config):
        assert declared.doc.endswith("."), f"{field.name}: a sentence"
        assert f"| `{field.name}` |" in section, field.name
        assert declared.env is None or f"`{declared.env}`" in section, field.name


@pytest.mark.parametrize("variable", [*VARIABLES, *sorted(set(OPTION_VARIABLES))])
def test_every_variable_is_documented_and_in_the_example_environment(variable: str) -> None:
    assert f"| `{variable}` |" in DOCS.read_text()
    assert re.search(rf"^# {variable}=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)


def test_the_example_environment_names_nothing_that_is_not_read() -> None:
    keys = {name for provider in KNOWN_PROVIDERS for name in provider.variables}
    known = {*VARIABLES, *OPTION_VARIABLES, *keys}

    assert set(re.findall(r"^#? ?(\w+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)) == known


def test_the_reference_is_ready_for_types_with_keys_of_every_form() -> None:
    """As it is written for the plugins of the tests."""
    text = reference(registry())

    assert '### type = "cost_limit" or "guard"\n\nA budget.\n' in text, "one table for two types with the same keys"
    assert '| `daily_usd` | string or number | required | The budget. Example: `"25.00"`. |' in text
    assert "| `ttl_s` | number | `60.0` | How long. `KEEPER_TTL` in the environment wins over it." in text
    assert "| `judges[].llm` | string | required | The LLM that judges." in text
    assert '### type = "disk"\n\nKept in a file.\n' in text
    assert '### type = "memory"\n\nKept in this process.\n\nNo keys of its own.\n' in text
    assert '| `KEEPER_TTL` | `ttl_s` of each processor with `type = "keeper"` | How long. |' in text
    assert '| `DISK_PATH` | `path` of each store with `type = "disk"` | The file. |' in text


def test_the_embedded_default_is_valid_by_the_schema() -> None:
    document = embedded_config({"OPENAI_API_KEY": "k", "MISTRAL_API_KEY": "k"})

    assert not list(mistakes(json.loads(SCHEMA.read_text()), document))
