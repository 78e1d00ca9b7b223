"""The README says what there is, and its configuration works."""

from __future__ import annotations

import re
from pathlib import Path

import llmproxy_cost_limit
import tomli
from llmproxy_cost_limit import CostLimitConfig, config, demand
from test_cost_limit_shared import Limited, asking

import llmproxy_server.demo
from llmproxy_core import Window
from llmproxy_core.option import options

README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")


def test_every_key_is_in_the_table_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \| .+ \|$", README, re.MULTILINE)
    declared = {
        field.name: "no limit" if field.default is None else f"`{field.default}`"
        for field, _ in options(CostLimitConfig)
    }

    assert dict(rows) == declared


async def test_its_configuration_limits() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)

    async with Limited(tomli.loads(block), plugins=[llmproxy_server.demo, llmproxy_cost_limit]) as proxy:
        cheap, dear = await proxy.ask(), await proxy.ask(asking(cap=1_000_000))
        spent, reserved = await proxy.figures(Window.DAY, table="each_caller")

    assert (cheap.status, dear.status) == (200, 402)
    assert spent > 0
    assert reserved == 0


def test_the_figures_in_its_text_are_the_ones_in_the_code() -> None:
    assert f"`{config.IMAGE_TOKENS}`" in README
    assert f"{demand.TEMPLATE_TOKENS} tokens are added" in README
    assert f"{demand.TOOL_TOKENS} for tools" in README
