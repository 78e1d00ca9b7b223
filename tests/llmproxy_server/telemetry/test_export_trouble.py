"""Trouble with a collector is never a call's."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.llmproxy_server.cli_process import environment
from tests.llmproxy_server.telemetry.test_traces import post, traced
from tests.otlp_receiver import collector
from tests.proxy import Proxy
from tests.upstream import Upstream, completion, refusing_url, reply
from tests.workers import CONFIG_DEMO, QUESTION, ask, working

pytestmark = pytest.mark.timeout(90)
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


async def dropped(proxy: Proxy) -> float:
    """The metric, once it is above 0."""
    drops = proxy.server._maker.drops
    async with asyncio.timeout(30):
        while not drops.count:  # noqa: ASYNC110 - a thread counts
            await asyncio.sleep(0.02)
    return drops.count


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_collector_that_is_not_there_costs_no_call_and_its_spans_are_counted(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with collector() as receiver, Upstream(reply(completion("Hi"))) as upstream:
        with refusing_url() as nowhere:
            made = traced(upstream, receiver, protocol, headers={"x-key": {"env": "KEY"}})
            made["telemetry"]["endpoint"] = nowhere
            async with Proxy(made) as proxy:
                for _ in range(5):
                    assert (await post(proxy)).status == 200
                assert await dropped(proxy) >= 2

    said = [it.getMessage() for it in caplog.records if "spans are dropped" in it.getMessage()]
    assert len(said) == 1, "a line a minute"
    assert not [it for it in caplog.records if it.name.startswith("opentelemetry")]
    assert "sk-proxy-test" not in caplog.text


@pytest.mark.parametrize(("status", "body"), [(503, b""), (400, b"no"), (200, b"\xff garbage"), (301, b"")])
async def test_whatever_a_collector_answers_calls_are_served(status: int, body: bytes) -> None:
    async with collector() as receiver, Upstream(reply(completion("Hi"))) as upstream:
        receiver.status, receiver.body = status, body
        async with Proxy(traced(upstream, receiver)) as proxy:
            for _ in range(3):
                assert (await post(proxy)).status == 200
            await receiver.until(lambda: bool(receiver.raw))


async def test_a_collector_that_hangs_holds_up_neither_calls_nor_the_end() -> None:
    async with collector() as receiver, Upstream(reply(completion("Hi"))) as upstream:
        receiver.stalled.clear()
        async with Proxy(traced(upstream, receiver)) as proxy:
            for _ in range(3):
                assert (await post(proxy)).status == 200
            began = asyncio.get_running_loop().time()
            await proxy.server.stop()
        took = asyncio.get_running_loop().time() - began

    assert took < 8, "two seconds, and what a loaded machine adds"


async def test_the_last_spans_leave_before_the_process_ends(tmp_path: Path) -> None:
    async with collector() as receiver:
        telemetry = f'\n[telemetry]\ntraces = true\nendpoint = "{receiver.endpoint}"\n'
        variables = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_RESOURCE_ATTRIBUTES": "team=search"}
        async with working(tmp_path, CONFIG_DEMO + telemetry, variables=variables) as proxy:
            assert (await ask(proxy.port, "POST", CHAT, QUESTION)).status == 200
            assert await proxy.end(signal.SIGTERM) == 0
        spans = await receiver.received(2)

    assert {it.kind for it in spans} == {"SERVER", "CLIENT"}
    assert spans[0].resource["team"] == "search"


async def test_a_reload_that_leaves_telemetry_alone_keeps_the_exporter(tmp_path: Path) -> None:
    async with collector() as receiver:
        telemetry = f'\n[telemetry]\ntraces = true\nendpoint = "{receiver.endpoint}"\n'
        variables = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with working(tmp_path, CONFIG_DEMO + telemetry, variables=variables) as proxy:
            await ask(proxy.port, "POST", CHAT, QUESTION)
            (tmp_path / "proxy.toml").write_text(CONFIG_DEMO.replace('"first"', '"second"') + telemetry)
            assert (await ask(proxy.port, "POST", "/api/reload")).status == 200
            await ask(proxy.port, "POST", CHAT, QUESTION.replace(b"Hello", b"Again"))
            spans = await receiver.received(4)

    assert len({it.resource["service.instance.id"] for it in spans}) == 1


def test_nothing_of_the_sdk_is_imported_where_traces_are_off(tmp_path: Path) -> None:
    code = """
import asyncio, json, sys
from llmproxy_server.cli_load import load_configuration, load_registry
from llmproxy_server.server import Server
registry = load_registry()
async def main():
    server = Server(load_configuration(None, registry, {"server.port": 0}).config, registry)
    await server.start()
    await server.aclose()
asyncio.run(main())
print(json.dumps([name for name in sys.modules if name.startswith(("opentelemetry", "grpc", "google"))]))
"""
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == []
