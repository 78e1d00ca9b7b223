"""The README says what there is, and its configuration works."""

from __future__ import annotations

import re
from pathlib import Path

import tomli
from llmproxy_cache import CacheConfig
from test_cache_kit import Cached, status

import llmproxy_server.demo
from llmproxy_core.option import options
from tests.llmproxy_core.conversation import question

README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")


def test_every_key_is_in_the_table_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \| .+ \|$", README, re.MULTILINE)
    shown = {True: "`true`", None: "absent"}
    declared = {field.name: shown.get(field.default, f"`{field.default}`") for field, _ in options(CacheConfig)}

    assert dict(rows) == declared


def test_every_variable_is_named() -> None:
    assert {it.env for _, it in options(CacheConfig) if it.env is not None} == set(re.findall(r"CACHE_\w+", README))


async def test_its_configuration_caches() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)

    async with Cached(tomli.loads(block), plugins=[llmproxy_server.demo]) as proxy:
        seen = [await proxy.ask(question(model="demo", stream=it)) for it in (True, False)]

    assert [status(it) for it in seen] == ["miss", "hit"]
