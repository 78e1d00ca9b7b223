"""`llmproxy schema`: JSON Schema for editors, the same for the same plugins."""

from __future__ import annotations

import json
from pathlib import Path

from tests.llmproxy_server.cli_process import install_plugin, llmproxy

EXTRA = """
from attrs import frozen
from llmproxy_core import LLMConfig, ProviderType, hookimpl, option

@frozen(kw_only=True)
class ExtraConfig(LLMConfig):
    flavour: str = option("How it tastes.", default="plain")

@hookimpl
def llmproxy_providers():
    return [ProviderType("extra", ExtraConfig, lambda config, services: None)]
"""


def test_it_is_json_with_every_section(tmp_path: Path) -> None:
    ran = llmproxy("schema", cwd=tmp_path)

    assert (ran.code, ran.err) == (0, "")
    assert set(json.loads(ran.out)["properties"]) == {"server", "telemetry", "llm", "processor", "store", "route"}


def test_it_is_the_same_text_whatever_the_order_of_hashes(tmp_path: Path) -> None:
    one, other = (llmproxy("schema", cwd=tmp_path, PYTHONHASHSEED=seed).out for seed in ("1", "2"))

    assert one == other


def test_it_knows_the_types_of_installed_plugins(tmp_path: Path) -> None:
    without = llmproxy("schema", cwd=tmp_path)
    install_plugin(tmp_path, "extra", EXTRA)

    with_it = llmproxy("schema", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert "How it tastes." in with_it.out
    assert "How it tastes." not in without.out
