"""The configuration without a file."""

from typing import Any

import pytest

from llmproxy_core.group_config import GroupConfig
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.secret import Secret
from llmproxy_server.embedded import DEMO_MODELS, KNOWN_PROVIDERS, embedded_config
from llmproxy_server.loader import load
from tests.registry import registry

KEYS = {
    "OPENAI_API_KEY": "openai",
    "ANTHROPIC_API_KEY": "anthropic",
    "CLAUDE_API_KEY": "anthropic",
    "GEMINI_API_KEY": "gemini",
    "GOOGLE_API_KEY": "gemini",
    "MISTRAL_API_KEY": "mistral",
}


def test_without_a_key_the_demo_answers_for_every_model() -> None:
    found = load(None, registry(), {})

    assert list(found.config.llms) == ["demo", "default"]
    assert [asked for asked, _ in found.config.llms["demo"].models] == [*DEMO_MODELS, "demo*", "*"]
    assert (found.path, found.text, found.warnings) == (None, None, ())
    assert [(it.path_prefix, it.target_llm) for it in found.config.routes] == [
        ("/v1", "default"),
        ("/v1beta", "default"),
    ]


@pytest.mark.parametrize(("variable", "name"), KEYS.items())
def test_a_key_adds_its_provider_before_the_demo(variable: str, name: str) -> None:
    config = load(None, registry(), {variable: "the-key"}).config

    llm, group = config.llms[name], config.llms["default"]
    assert isinstance(llm, HttpLLMConfig)
    assert isinstance(group, GroupConfig)
    assert llm.token == Secret("the-key")
    assert llm.base_url == next(it.base_url for it in KNOWN_PROVIDERS if it.name == name)
    assert llm.models, "an LLM without a list would take every model"
    assert group.members == (name, "demo")
    assert ("*", None) not in config.llms["demo"].models


def test_all_keys_give_all_providers_in_one_group() -> None:
    group = load(None, registry(), dict.fromkeys(KEYS, "k")).config.llms["default"]

    assert isinstance(group, GroupConfig)
    assert group.members == ("openai", "anthropic", "gemini", "mistral", "demo")


def test_an_empty_key_is_none_and_the_newer_name_wins() -> None:
    llms: Any = embedded_config({"OPENAI_API_KEY": " ", "ANTHROPIC_API_KEY": "new", "CLAUDE_API_KEY": "old"})["llm"]

    assert "openai" not in llms
    assert llms["anthropic"]["token_env"] == "ANTHROPIC_API_KEY"


def test_the_environment_and_the_command_line_apply_to_it() -> None:
    found = load(
        None, registry(), {"PROXY_API_PORT": "4", "OPENAI_API_KEY": "k", "HTTP_TIMEOUT": "7"}, {"server.port": 5}
    )

    llm = found.config.llms["openai"]
    assert isinstance(llm, HttpLLMConfig)
    assert llm.timeouts.first_byte_s == 7
    assert found.settings["port"].value == 5
