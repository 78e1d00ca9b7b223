"""What is out of service stays so over reloads, as long as there is an LLM of that name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from llmproxy_core.tasks import Tasks
from tests.exact import ask
from tests.exact import post as post_json
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.reloading import Reloadable
from tests.proxy import openai_at
from tests.rawclient import connected
from tests.resilience.flocks import says
from tests.upstream import Upstream, Wait

NOWHERE = "http://127.0.0.1:9/v1"


def named(*names: str, base_url: str = NOWHERE, **llm: Any) -> dict[str, Any]:
    """LLMs of these *names*, the first of which is called."""
    mapping = openai_at(base_url, route={"target_llm": names[0]}, **llm)
    made = mapping["llm"].pop("openai")
    mapping["llm"] = dict.fromkeys(names, made)
    return mapping


async def drain(port: int, llm: str, drained: bool = True) -> tuple[int, Any]:
    body = json.dumps({"llm": llm, "drained": drained}).encode()
    seen = await ask("POST", f"http://127.0.0.1:{port}/providers", body, [("content-type", "application/json")])
    return seen.status, json.loads(seen.body)


async def states(port: int) -> dict[str, str]:
    seen = await ask("GET", f"http://127.0.0.1:{port}/providers")
    return {name: llm["state"] for name, llm in json.loads(seen.body)["llms"].items()}


async def test_what_is_out_of_service_before_the_first_configuration_is_never_called(tmp_path: Path) -> None:
    async with Upstream(says("hello")) as upstream:
        proxy = Reloadable(tmp_path, named("a", "b", base_url=upstream.base_url, max_in_flight=5))
        proxy.server.health.drained.begin(["a", "gone"])
        async with proxy:
            seen = await post_json(f"http://127.0.0.1:{proxy.port}/v1/chat/completions", question())

            assert (seen.status, await states(proxy.port)) == (503, {"a": "drained", "b": "unknown"})
            assert proxy.server.health.drained.names == ["a"]
        assert upstream.requests == []


async def test_a_table_that_was_away_is_in_service_when_it_comes_back(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, named("a", "b", max_in_flight=5)) as proxy:
        await drain(proxy.port, "a")
        assert (await proxy.reload(named("b", "renamed", max_in_flight=5))).ok
        assert await states(proxy.port) == {"b": "unknown", "renamed": "unknown"}

        assert (await proxy.reload(named("a", "b", max_in_flight=5))).ok

        assert await states(proxy.port) == {"a": "unknown", "b": "unknown"}


async def test_it_is_in_service_also_while_a_call_from_before_is_still_under_way(tmp_path: Path) -> None:
    """The call keeps what its configuration knew of the LLM."""
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *says("hello")]) as upstream,
        Reloadable(tmp_path, named("a", base_url=upstream.base_url, max_in_flight=5)) as proxy,
    ):
        url = f"http://127.0.0.1:{proxy.port}/v1/chat/completions"
        asking = Tasks().start(post_json(url, question()), name="asks")
        await upstream.received()
        await drain(proxy.port, "a")
        await proxy.reload(named("b", max_in_flight=5))

        await proxy.reload(named("a", base_url=upstream.base_url, max_in_flight=5))

        assert await states(proxy.port) == {"a": "unknown"}
        go_on.set()
        assert (await asyncio.wait_for(asking, 10)).status == 200


async def test_an_llm_whose_calls_are_not_counted_for_a_while_is_out_of_service_when_they_are_again(
    tmp_path: Path,
) -> None:
    async with Reloadable(tmp_path, named("a", max_in_flight=5)) as proxy:
        await drain(proxy.port, "a")
        await proxy.reload(named("a"))
        assert await states(proxy.port) == {"a": "unknown"}

        await proxy.reload(named("a", max_in_flight=5))

        assert await states(proxy.port) == {"a": "drained"}


async def test_a_process_that_drains_takes_nothing_that_it_would_forget(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, named("a", max_in_flight=5)) as proxy, connected(proxy.port):
        proxy.server.life.draining = True
        status, said = await drain(proxy.port, "a")

        assert (status, said["error"]["code"]) == (409, "about_to_end")
        assert proxy.server.health.drained.names == []
