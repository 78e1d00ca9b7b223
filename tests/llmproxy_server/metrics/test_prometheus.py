"""A real Prometheus scrapes a real proxy, and answers queries with what it found."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.exact import ask
from tests.llmproxy_server.metrics.scraping import MODEL, chat, priced_at
from tests.needs import need_program
from tests.proxy import Proxy
from tests.upstream import Upstream, chat_chunk, completion, error, reply, stream, usage_chunk

WAIT_S = 60.0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[str]:
    """A Prometheus that scrapes *target* twice a second; gives its URL."""
    program = need_program("prometheus", package="prometheus")
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
        "scrape_configs": [
            {"job_name": "llmproxy", "metrics_path": "/api/metrics", "static_configs": [{"targets": [target]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # YAML takes JSON
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        await process.wait()


async def query(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """The labels and values of an instant query; nothing while the server does not answer."""
    try:
        seen = await ask("GET", f"{url}/api/v1/query?query={quote(expression)}")
        said = json.loads(seen.body)
    except (OSError, ValueError):
        return []
    if said.get("status") != "success":
        return []
    return [(it["metric"], float(it["value"][1])) for it in said["data"]["result"]]


async def until(url: str, expression: str, value: float) -> dict[str, str]:
    """Ask until the one series of *expression* has that value; its labels."""
    found: list[tuple[dict[str, str], float]] = []
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = await query(url, expression)
                if len(found) == 1 and found[0][1] == value:
                    return found[0][0]
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"{expression}: expected {value}, the last answer was {found}")


@pytest.mark.timeout(180)
async def test_prometheus_has_what_the_proxy_counted(tmp_path: Path) -> None:
    streamed = stream(chat_chunk("a"), chat_chunk("b", finish="stop"), usage_chunk(prompt=9, completion=3))
    async with Upstream(reply(completion("Hi"))) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        upstream.then(reply(completion("Hi", prompt=9, completion=3)), streamed, reply(error("Busy"), status=503))
        await chat(proxy)
        await chat(proxy, stream=True)
        await chat(proxy)
        await proxy.outcome(3)
        async with prometheus(tmp_path, proxy.url.removeprefix("http://")) as url:
            labels = await until(url, f'llmproxy_requests_total{{model="{MODEL}",status="200"}}', 2)
            assert labels["job"] == "llmproxy"
            await until(url, f'sum(llmproxy_tokens_processed_total{{model="{MODEL}"}})', 24)
            await until(url, "llmproxy_model_availability", 0)
            await until(
                url, f'histogram_quantile(0.5, llmproxy_request_duration_seconds_bucket{{model="{MODEL}"}}) > bool 0', 1
            )
            await until(url, 'gen_ai_client_token_usage_sum{gen_ai_token_type="output"}', 6)
            await until(url, "up", 1)
            upstream.then(reply(completion("Hi")))
            await chat(proxy)
            await until(url, f'llmproxy_requests_total{{model="{MODEL}",status="200"}}', 3)
            await until(url, "llmproxy_model_availability", 1)
            types = await ask("GET", f"{url}/api/v1/metadata")

    metadata = json.loads(types.body)["data"]
    names = ("llmproxy_request_duration_seconds", "llmproxy_active_requests")
    assert [metadata[name][0]["type"] for name in names] == ["histogram", "gauge"]
