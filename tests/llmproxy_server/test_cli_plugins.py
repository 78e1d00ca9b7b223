"""`llmproxy plugins`: what is registered, by which distribution and module, and what could not be used."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from tests.llmproxy_server.cli_process import install_plugin, llmproxy

EXTRA = """
from attrs import frozen
from llmproxy_core import Endpoint, EndpointReply, LLMConfig, ProviderType, StoreType, hookimpl

@frozen
class Nothing:
    pass

@hookimpl
def llmproxy_stores():
    return [StoreType("extra_store", Nothing, lambda config, services: None)]

async def answer(request):
    return EndpointReply(b"{}")

@hookimpl
def llmproxy_providers():
    return [ProviderType("extra", LLMConfig, lambda config, services: None)]

@hookimpl
def llmproxy_endpoints():
    return [Endpoint("GET", "/extra", answer)]
"""

DEMO_AGAIN = """
from llmproxy_core import LLMConfig, ProviderType, hookimpl

@hookimpl
def llmproxy_providers():
    return [ProviderType("demo", LLMConfig, lambda config, services: None)]
"""


WRONG = """
from llmproxy_core import LLMConfig, ProviderType, hookimpl

@hookimpl
def llmproxy_providers():
    return [ProviderType("wrong_llm", LLMConfig, lambda config, services: None)]

@hookimpl
def llmproxy_processors():
    return ["summarise"]
"""


def block(out: str, heading: str) -> list[list[str]]:
    """The rows below *heading*, in words."""
    rows = out.partition(f"{heading}\n")[2].partition("\n\n")[0]
    return [row.split() for row in rows.splitlines()]


def test_first_party_plugins_have_their_distribution_version_and_module(tmp_path: Path) -> None:
    ran = llmproxy("plugins", cwd=tmp_path)

    assert ran.code == 0
    ours = ["llmproxy", version("llmproxy")]
    assert ["demo", *ours, "llmproxy_server.demo"] in block(ran.out, "providers")
    assert ["by_model", *ours, "llmproxy_core.groups"] in block(ran.out, "providers")
    assert ["openai", *ours, "llmproxy_openai.plugin"] in block(ran.out, "dialects")
    assert "Every installed plugin could be used." in ran.out


def test_a_third_partys_plugin_stands_beside_them(tmp_path: Path) -> None:
    install_plugin(tmp_path, "extra", EXTRA)

    ran = llmproxy("plugins", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert ["extra", "llmproxy-extra", "1.5", "llmproxy_extra"] in block(ran.out, "providers")
    assert ["extra_store", "llmproxy-extra", "1.5", "llmproxy_extra"] in block(ran.out, "stores")
    assert ["GET", "/extra", "llmproxy-extra", "1.5", "llmproxy_extra"] in block(ran.out, "endpoints")


def test_a_broken_plugin_is_named_with_the_reason_and_is_no_failure(tmp_path: Path) -> None:
    install_plugin(tmp_path, "broken", "import no_such_module")

    ran = llmproxy("plugins", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert ran.code == 0
    assert "Every installed plugin" not in ran.out
    assert "could not be used" in ran.out
    (line,) = [line for line in ran.out.splitlines() if "llmproxy_broken" in line]
    assert line.startswith("  llmproxy_broken of llmproxy-broken 1.5: ")
    assert "no_such_module" in line


def test_a_plugin_whose_hook_returns_something_else_is_named_and_nothing_of_it_is_registered(tmp_path: Path) -> None:
    install_plugin(tmp_path, "wrong", WRONG)

    ran = llmproxy("plugins", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert ran.code == 0
    (line,) = [line for line in ran.out.splitlines() if "llmproxy_wrong" in line]
    assert line == "  llmproxy_wrong of llmproxy-wrong 1.5: TypeError: expected a ProcessorType, got 'summarise'"
    assert "wrong_llm" not in ran.out


def test_two_plugins_with_one_name_stop_every_command_and_are_both_named(tmp_path: Path) -> None:
    install_plugin(tmp_path, "twice", DEMO_AGAIN)

    ran = llmproxy("plugins", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("The set of installed plugins has 1 problem:\n")
    assert "llmproxy_twice of llmproxy-twice" in ran.err
    assert "llmproxy_server.demo of llmproxy" in ran.err
