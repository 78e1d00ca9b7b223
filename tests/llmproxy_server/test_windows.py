"""Without uvloop, and without what POSIX has beside Python's own, the proxy works on the standard loop."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.llmproxy_server.cli_process import llmproxy
from tests.llmproxy_server.test_cli_serve import QUESTION, serving

COMMAND = (sys.executable, "-m", "tests.llmproxy_server.as_windows")
CONFIG = """
[server]
port = 0
{server}
[llm.demo]
provider = "demo"
[[route]]
path_prefix = "/v1"
target_llm = "demo"
"""
TLS = 'tls_certificate = "served.pem"\ntls_key = "served.key"'


def test_a_proxy_answers_streams_and_ends_in_order(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG.format(server=""))

    with serving(tmp_path, "--config", "config.toml", command=COMMAND) as proxy:
        status, text = proxy.request("POST", "/v1/chat/completions", QUESTION)
        assert status == 200
        assert text.endswith("data: [DONE]\n\n")
        assert proxy.request("GET", "/readyz")[0] == 200
        assert '"total_requests":1' in proxy.request("GET", "/metrics")[1]
        code, rest = proxy.end(signal.SIGINT)

    assert code == 0
    assert rest.count('"message":"exchange"') == 1
    assert '"level":"error"' not in rest


@pytest.mark.parametrize("server", ["max_connections = 2", TLS + "\nmax_connections = 2"], ids=["bounded", "TLS"])
def test_connections_are_accepted_one_by_one(server: str, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-keyout", "served.key", "-out", "served.pem"]
    subprocess.run([*made, *files], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (tmp_path / "config.toml").write_text(CONFIG.format(server=server))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    with serving(tmp_path, "--config", "config.toml", command=COMMAND) as proxy:
        scheme = "https" if TLS in server else "http"
        for _ in range(4):
            with urllib.request.urlopen(
                f"{scheme}://127.0.0.1:{proxy.port}/livez", context=context, timeout=30
            ) as answer:
                assert answer.status == 200
        code, rest = proxy.end(signal.SIGTERM)

    assert code == 0
    assert '"level":"error"' not in rest


def test_several_workers_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG.format(server="workers = 2"))

    ran = llmproxy("serve", "--config", "config.toml", cwd=tmp_path, command=COMMAND)

    assert ran.code != 0
    assert "server.workers: on Windows there is one worker; expected 1" in ran.err


@pytest.mark.parametrize(
    "arguments", ["rehearse --fast --calls 20 config.toml", "explain --config config.toml GET /v1/models"]
)
def test_what_needs_no_server_works_as_well(arguments: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG.format(server=""))

    ran = llmproxy(*arguments.split(), cwd=tmp_path, command=COMMAND)

    assert (ran.code, "Traceback" in ran.err) == (0, False), ran.err
