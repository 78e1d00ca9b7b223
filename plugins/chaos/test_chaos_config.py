"""What may stand in the tables, and what is said of mistakes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llmproxy_chaos
import pytest
from test_chaos_kit import Chaotic, above, always, below

from llmproxy_core import ConfigError
from tests.answers import completion, reply
from tests.exact import post
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.reloading import Reloadable
from tests.upstream import Upstream

NOWHERE = "http://127.0.0.1:9/v1"
FLIP = {"error": {"share": 0.5, "status": 503}}


def problems(mapping: Mapping[str, Any]) -> list[str]:
    """All that is said of *mapping*."""
    with pytest.raises(ConfigError) as raised:
        Chaotic(mapping)
    return [str(it) for it in raised.value.problems]


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"cut": {"share": 1.5}}, "cut.share: expected a number from 0 to 1"),
        ({"cut": {}}, "cut.share"),
        ({"cut": {"share": 1, "after_chars": [5, 2]}}, "cut.after_chars: expected a number of characters from 0"),
        ({"latency": {"share": 1, "ms": [1, 2, 3]}}, "latency.ms: expected milliseconds from 0"),
        ({"latency": {"share": 1, "ms": "100"}}, "latency.ms: expected an integer or an array"),
        ({"error": {"share": 1, "status": 200}}, "error.status: expected a status from 400 to 599"),
        ({"error": {"share": 1, "status": []}}, "error.status: expected a status from 400 to 599"),
        ({"timeout": {"share": 1, "clock": "idles"}}, 'did you mean "idle"?'),
        ({"cutt": {"share": 1}}, "cut"),
    ],
)
def test_a_mistake_is_named(faults: dict[str, object], said: str) -> None:
    for mapping in (above(NOWHERE, faults), below(NOWHERE, faults)):
        (found,) = problems(mapping)

        assert said in found


async def refused(mapping: Mapping[str, Any]) -> list[str]:
    """What is said when a gateway is built of *mapping*."""
    proxy = Chaotic(mapping)
    with pytest.raises(ConfigError) as raised:
        async with proxy:
            pass
    return [str(it) for it in raised.value.problems]


async def test_a_table_without_any_fault_is_refused() -> None:
    (processor,) = await refused(above(NOWHERE, {}))
    (llm,) = await refused(below(NOWHERE, {}))

    assert processor.startswith("processor.faulty.faults: expected at least one of latency, connect, timeout, error")
    assert llm.startswith("llm.flaky.faults: expected at least one of")


async def test_the_wrapper_has_one_member() -> None:
    mapping = below(NOWHERE, {"cut": always()}, members=["openai", "other"])
    mapping["llm"]["other"] = mapping["llm"]["openai"]

    assert await refused(mapping) == ["llm.flaky.members: expected one LLM, got 2"]


async def test_it_is_warned_of_when_a_gateway_is_built(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "llmproxy"):
        async with Chaotic(above(NOWHERE, {"cut": always(), "latency": always(ms=1)})):
            pass

    (said,) = [it.getMessage() for it in caplog.records if "chaos" in it.getMessage()]
    assert said == "chaos is configured: [processor.faulty] makes calls fail on purpose (latency, cut)"


async def statuses(port: int, calls: int) -> list[int]:
    return [(await post(f"http://127.0.0.1:{port}/v1/chat/completions", question())).status for _ in range(calls)]


async def test_a_reload_that_leaves_the_table_goes_on_in_its_sequence(tmp_path: Path) -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = above(upstream.base_url, FLIP)
        async with Reloadable(tmp_path, mapping, plugins=[llmproxy_chaos]) as proxy:
            at_once = await statuses(proxy.port, 20)
        async with Reloadable(tmp_path, mapping, plugins=[llmproxy_chaos]) as proxy:
            before = await statuses(proxy.port, 10)
            reloaded = await proxy.reload(above(upstream.base_url, FLIP, models=["gpt-*"]))
            after = await statuses(proxy.port, 10)

    assert set(at_once) == {200, 503}
    assert reloaded.ok
    assert not reloaded.unchanged
    assert before + after == at_once
