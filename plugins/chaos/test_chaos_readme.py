"""The README says what there is, and its configuration works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import tomli
from llmproxy_chaos import ChaosConfig, ChaosLLMConfig, Faults
from test_chaos_kit import Chaotic

import llmproxy_server.demo
from llmproxy_core import GroupConfig
from llmproxy_core.config_types import structured
from llmproxy_core.option import options

README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
CALLS = 60


def test_every_key_is_in_the_table_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:integer|table) \| (.+) \| .+ \|$", README, re.MULTILINE)
    declared = {
        field.name: "required" if field.default is attrs.NOTHING else f"`{field.default}`"
        for field, _ in options(ChaosConfig)
    }

    assert dict(rows) == declared


def test_both_have_the_same_keys() -> None:
    usual = {field.name for field, _ in options(GroupConfig)}
    of_llm = {field.name for field, _ in options(ChaosLLMConfig)} - usual

    assert of_llm == {field.name for field, _ in options(ChaosConfig)}


def kind_of(field: attrs.Attribute[Any]) -> Any:
    """The table that a fault's key holds."""
    return next(it for it in field.type.__args__ if attrs.has(it))  # type: ignore[union-attr]


def test_every_fault_is_in_the_table_with_its_keys_in_the_order_in_which_they_come() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (`.+?) \| [A-Z].+ \| .* ?\|$", README, re.MULTILINE)
    keys = {
        name: re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cell))
        for name, cell in rows
        if name not in ("seed", "faults")
    }

    expected = {
        field.name: [it.name for it, _ in options(kind_of(field)) if it.name != "share"] for field, _ in options(Faults)
    }
    assert list(keys.items()) == list(expected.items())


def test_what_each_fault_says_of_itself_names_its_keys_and_its_example_is_right() -> None:
    for field, declared in options(Faults):
        named = re.findall(r"\w+", declared.doc.split("`")[1])

        assert named == [it.name for it, _ in options(kind_of(field))]
        assert structured(kind_of(field), declared.example, {})


async def test_its_configuration_injects() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)

    async with Chaotic(tomli.loads(block), plugins=[llmproxy_server.demo]) as proxy:
        seen = [await proxy.ask(model="demo") for _ in range(CALLS)]

    found = {fault for it in proxy.injected if isinstance(it, list) for fault in it}
    assert found == {"latency", "connect", "error", "cut"}
    assert {it.status for it in seen} >= {200, 502}
