"""`POST /api/reload`: who may call it, and what it answers."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from llmproxy_core.tasks import Tasks
from tests.llmproxy_server.edging import answer, ask, post, processed, request
from tests.llmproxy_server.reloading import TIMEOUT_S, Reloadable
from tests.llmproxy_server.test_reload import Refusing
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.upstream import Upstream, Wait, completion, reply

NOWHERE = "http://127.0.0.1:9/v1"
RELOAD = post(b"", "/api/reload")
MAPPING = openai_at(NOWHERE)


async def test_it_answers_what_changed(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, MAPPING) as proxy, connected(proxy.port) as client:
        proxy.write(with_server(openai_at("http://127.0.0.1:10/v1"), max_in_flight=7, port=1))

        got = await ask(client, RELOAD)

        assert got.status == 200
        assert got.json == {
            "reloaded": True,
            "generation": 2,
            "unchanged": False,
            "changes": ["llm.openai changed (base_url)", "server changed (max_in_flight)"],
            "needs_restart": ["server.port"],
            "warnings": [],
        }
        assert (await ask(client, RELOAD)).json["unchanged"]


async def test_every_problem_is_answered_with_its_place_and_a_suggestion(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, MAPPING) as proxy, connected(proxy.port) as client:
        text = proxy.file.read_text()
        proxy.write_text(text.replace('"provider" = "openai"', '"provider" = "opnai"') + "[processors]\n")

        got = await ask(client, RELOAD)

        assert got.status == 422
        assert (got.json["reloaded"], got.json["generation"]) == (False, 1)
        first, second = sorted(got.json["problems"], key=lambda it: str(it["path"]))
        assert (first["path"], second["path"]) == ("llm.openai.provider", "processors")
        assert 'did you mean "openai"?' in first["message"]
        assert first["line"] < second["line"]
        assert (await ask(client, request("GET", "/livez"))).status == 200


async def test_a_reload_while_the_proxy_drains_is_a_conflict(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *reply(completion("Hello"))]) as upstream,
        Reloadable(tmp_path, openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
        connected(proxy.port) as admin,
    ):
        client.send(post())
        await upstream.received()
        admin.send(RELOAD[:-10])  # it has begun to come when the end begins
        await until(lambda: len(proxy.server.edges[0].connections) == 2)
        stopping = Tasks().start(proxy.server.stop(), name="stop")
        admin.send(RELOAD[-10:])

        got = await answer(admin)

        assert got.status == 409
        assert got.json["problems"] == [{"path": "", "message": "the process is about to end"}]
        go_on.set()
        assert (await answer(client)).status == 200
        await asyncio.wait_for(stopping, TIMEOUT_S)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Origin: https://evil.example", 403),
        ("X-Forwarded-For: 10.0.0.1", 403),
        ("Forwarded: for=10.0.0.1", 403),
        ("X-Request-Id: 7", 200),
    ],
)
async def test_only_a_caller_on_this_machine_may_reload(header: str, status: int, tmp_path: Path) -> None:
    async with Reloadable(tmp_path, MAPPING) as proxy, connected(proxy.port) as client:
        proxy.write(with_server(MAPPING, max_in_flight=7))

        got = await ask(client, request("POST", "/api/reload", header, "Content-Length: 0"))

        assert got.status == status
        assert proxy.server.number == (2 if status == 200 else 1)


async def test_it_takes_no_other_method(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, MAPPING) as proxy, connected(proxy.port) as client:
        got = await ask(client, request("GET", "/api/reload"))

        assert (got.status, got["allow"]) == (405, "POST")


async def test_where_nothing_can_be_read_again_there_is_no_such_path() -> None:
    async with Proxy(MAPPING) as proxy, connected(proxy.port) as client:
        assert (await ask(client, RELOAD)).status == 404


async def test_no_secret_is_answered_or_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not of the configuration that is served, nor of one that is refused, whoever repeats it."""
    caplog.set_level(logging.DEBUG, "llmproxy")
    plugin = Refusing()
    env = {"OLD": "sk-old-0123456789abcdef", "NEW": "sk-new-0123456789abcdef"}
    mapping = processed(openai_at(NOWHERE, token_env="OLD"))
    async with Reloadable(tmp_path, mapping, plugins=[plugin], env=env) as proxy, connected(proxy.port) as client:
        plugin.error = ValueError(f"cannot use {env['NEW']} in the place of {env['OLD']}")
        proxy.write(processed(openai_at(NOWHERE, token_env="NEW")))

        refused = await ask(client, RELOAD)

        plugin.error = None
        taken = await ask(client, RELOAD)
        assert (refused.status, taken.status) == (422, 200)
        said = json.dumps([refused.json, taken.json])
        assert "could not build it" in said
        assert not any(secret in said for secret in env.values())
