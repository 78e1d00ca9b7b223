"""The JSON Schema says what the reader accepts."""

from typing import Any

import pytest
import tomli

from llmproxy_core.config import structure
from llmproxy_core.config_schema import json_schema, table_schema, type_schema
from llmproxy_core.errors import ConfigError
from llmproxy_core.plugins import Registry
from llmproxy_core.secret import Secret
from tests.llmproxy_core.test_config import MINIMAL, SEED
from tests.registry import KeeperConfig, LimitConfig, registry
from tests.schema import mistakes

SCHEMA: Any = json_schema(registry())


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL,
        MINIMAL + SEED.decode(),
        MINIMAL + '[llm.g]\nprovider = "by_model"\nmembers = ["local"]',
        MINIMAL + '[llm.g]\nprovider = "openai"\nbase_url = "https://a"\nheaders.x = { env = "A" }\nmodels.a = "b"\n'
        'prices.a = { input = "1", output = 1.5 }\ntimeouts.idle_s = 3\nenabled = false',
        MINIMAL + '[processor.p]\ntype = "cost_limit"\ndaily_usd = "25.00"\nwindow_s = 1\nuncovered = "allow"',
        MINIMAL + '[server]\nown_endpoints = "127.0.0.1:1"\nlog.level = "warn"',
        MINIMAL + '[store.memory]\ntype = "memory"\n[store.d]\ntype = "disk"\npath = "a"\nmirror = "memory"',
        MINIMAL + '[processor.p]\ntype = "keeper"\ntimeout_s = 1.5\non_error = "pass"\njudges = [{ llm = "local" }]',
    ],
)
def test_what_loads_is_valid(text: str) -> None:
    document = tomli.loads(text)

    structure(document, registry(), {})
    assert not list(mistakes(SCHEMA, document))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1\n" + MINIMAL,
        "route = []",
        MINIMAL + "targt = 1",
        MINIMAL + 'operations = ["chatt"]',
        MINIMAL + 'dialect = "x"',
        MINIMAL + "[server]\nport = 70000",
        MINIMAL + "[server]\nport = true",
        MINIMAL + "[server.log]\nlevel = 'x'",
        MINIMAL + "[llm.x]",
        MINIMAL + '[llm.x]\nprovider = "x"',
        MINIMAL + '[llm.x]\nprovider = "openai"',
        MINIMAL + '[llm.x]\nprovider = "by_model"\nmembers = ["local"]\nbase_url = "https://a"',
        MINIMAL + '[llm.x]\nprovider = "openai"\nbase_url = "https://a"\ntype = "x"',
        MINIMAL + '[processor.x]\ntype = "openai_chat"\nfoo = 1',
        MINIMAL + '[processor.x]\ntype = "openai_chat"\nmodel = "m"\nadditional_config.foo = 1',
        MINIMAL + '[processor.x]\ntype = "openai_chat"\nconfig_value = 3',
        MINIMAL + '[processor.x]\ntype = "guard"\ndaily_usd = 1\nconfig_value = 3',
        MINIMAL + '[processor.x]\ntype = "keeper"\ntimeout_s = 0',
        MINIMAL + '[processor.x]\ntype = "keeper"\non_error = "stop"',
        MINIMAL + "[store.x]",
        MINIMAL + '[store.x]\ntype = "dsk"',
        MINIMAL + '[store.x]\ntype = "disk"',
        MINIMAL + '[store.x]\ntype = "memory"\npath = "a"',
    ],
)
def test_what_does_not_load_for_its_form_is_not_valid(text: str) -> None:
    document = tomli.loads(text)

    with pytest.raises(ConfigError):
        structure(document, registry(), {})
    assert list(mistakes(SCHEMA, document))


def test_a_key_carries_its_documentation_default_and_bounds() -> None:
    port = SCHEMA["properties"]["server"]["properties"]["port"]

    assert port == {
        "type": "integer",
        "minimum": 0,
        "maximum": 65535,
        "description": "The TCP port; 0 takes a free one.",
        "default": 3000,
    }


def test_a_key_tells_of_the_variable_that_wins_over_it() -> None:
    properties: Any = table_schema(KeeperConfig)["properties"]

    assert properties["ttl_s"]["description"] == "How long. `KEEPER_TTL` in the environment wins over it."
    assert properties["store"]["description"] == "Where things are kept."


def test_a_secret_is_a_reference_and_money_text_or_number() -> None:
    limit: Any = table_schema(LimitConfig)

    assert limit["properties"]["password"]["required"] == ["env"]
    assert limit["properties"]["daily_usd"]["type"] == ["string", "number"]
    assert type_schema(Secret | None) == type_schema(Secret)


def test_an_empty_registry_has_a_schema_too() -> None:
    assert list(mistakes(json_schema(Registry()), {}))
