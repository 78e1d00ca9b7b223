"""The logs of a real proxy: steps where they are wanted, and no secret ever."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy_server.log_line import TRACE
from tests.llmproxy_server.edging import HELLO, ask, post, request
from tests.llmproxy_server.test_log_steps import Told
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Upstream, completion, reply


@pytest.fixture
def told() -> Iterator[Told]:
    logger, handler = logging.getLogger("llmproxy.steps"), Told()
    logger.addHandler(handler)
    logger.setLevel(TRACE)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("level", ["info", "debug", "trace"])
async def test_steps_are_told_from_debug_on_and_bodies_from_trace_on(level: str, told: Told) -> None:
    async with (
        Upstream(reply(completion("the-answer"))) as upstream,
        Proxy(openai_at(upstream.base_url, server={"log": {"level": level}}, token_env="KEY")) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(HELLO, "/v1/chat/completions?api_key=query-text", "Authorization: Bearer header-text"))
        transport = proxy.gateway.llms["openai"]._transport  # type: ignore[attr-defined]

    assert bool(told.lines) is (level != "info")
    assert (type(transport).__name__ == "WireTransport") is (level == "info"), "nothing is in the way when it is off"
    assert (proxy.gateway.services.around is None) is (level == "info")
    if level != "info":
        assert told.said() == [
            "route matched",
            "attempt begun",
            "attempt has headers",
            "attempt ended",
            *(["answer"] if level == "trace" else []),
        ]
    assert ("the-answer" in "".join(told.raw)) is (level == "trace")
    for secret in ("query-text", "header-text", "sk-proxy-test"):
        assert secret not in "".join(told.raw)


CONFIG = """
[server]
port = 0
[server.log]
level = "trace"
format = "{form}"
log_content = true
[llm.openai]
provider = "openai"
base_url = "{url}"
token_env = "KEY"
headers = {{ "x-team" = {{ env = "TEAM" }} }}
[[route]]
path_prefix = "/v1"
target_llm = "openai"
operations = ["chat", "embeddings", "models", "opaque"]
"""
SECRETS = {"KEY": "sk-key-0123456789abcdef", "TEAM": 'team "quoted"\\and/more'}
CLIENT_SECRET = "client-key-fedcba9876543210"


@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_secret_is_in_any_output_of_a_process_that_says_all_it_can(form: str, tmp_path: Path) -> None:
    """Hostile requests, answers that quote our keys, failures of all kinds; then the whole output is searched."""
    quoting = {"error": {"message": "\x1b[2J\n" + " and ".join(SECRETS.values()), "type": "x", "code": "y"}}
    quoted = completion(" and ".join(SECRETS.values()) + "\u202e\x00\x1b[31m")
    asking = [
        post(
            {**HELLO, "messages": [{"role": "user", "content": text}]},
            "/v1/chat/completions?key=" + CLIENT_SECRET,
            *more,
        )
        for text in ("plain", "\x00\x1b[2J\n\u202e", "x" * 100_000, "\ud800", *SECRETS.values())
        for more in (
            [f"Authorization: Bearer {CLIENT_SECRET}"],
            [f"X-Api-Key: {CLIENT_SECRET}", f"X-Long: {CLIENT_SECRET * 100}"],
        )
    ]
    asking += [
        post({"model": "m", "input": SECRETS["KEY"]}, "/v1/embeddings", f"Authorization: Bearer {CLIENT_SECRET}"),
        post(b"\x00" + SECRETS["KEY"].encode(), f"/v1/files?api_key={CLIENT_SECRET}", type="application/octet-stream"),
        post(b"{nonsense", "/v1/chat/completions", f"Authorization: Bearer {CLIENT_SECRET}"),
        request("GET", f"/nowhere/{SECRETS['KEY']}?key={CLIENT_SECRET}", f"Authorization: Bearer {CLIENT_SECRET}"),
        post({**HELLO, "stream": True}, "/v1/chat/completions", f"Cookie: session={CLIENT_SECRET}"),
    ]
    async with Upstream() as upstream:
        (tmp_path / "config.toml").write_text(CONFIG.format(form=form, url=upstream.base_url))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "llmproxy_server",
            "serve",
            "--config",
            str(tmp_path / "config.toml"),
            env={**os.environ, **SECRETS},
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        assert process.stderr is not None
        said = bytearray()
        async with asyncio.timeout(60):
            while b"http://127.0.0.1:" not in said:
                said += await process.stderr.readline()
            port = int(said.split(b"http://127.0.0.1:")[1].split()[0].split(b"/")[0])
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(process.communicate())
                for each in asking:
                    upstream.then(reply(quoting, 500), reply(quoted))
                    for _ in range(2):
                        async with connected(port) as client:
                            await ask(client, each, method=each.split(b" ", 1)[0].decode())
                process.send_signal(signal.SIGTERM)
        out, err = reading.result()
    output = (bytes(said) + out + err).decode()

    assert process.returncode == 0
    for secret in (*SECRETS.values(), CLIENT_SECRET):
        for shown in (secret, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret))[3:-3], repr(secret)[1:-1]):
            assert shown not in output, shown
    assert "***" in output
    assert "\x1b" not in output
    assert "\u202e" not in output
    lines = output.splitlines()
    if form == "json":
        read: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
        exchanges = [line for line in read if line["logger"] == "llmproxy.access"]
        assert len(exchanges) == 2 * len(asking)
        assert all(len(line.encode()) <= 4096 + 2 * 8192 + 64 for line in lines)
        assert {"route matched", "attempt begun", "attempt has headers", "attempt ended", "answer"} <= {
            line["message"] for line in read
        }
        assert lines[-1].startswith("{")
        assert json.loads(lines[-1])["message"] == "stopped"
