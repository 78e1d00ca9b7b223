"""The systems beside llmproxy: those that are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from bench.system import System
from bench.upstream import HERE

NGINX = """worker_processes 1; daemon off; pid $folder/pid; error_log stderr warn; worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http { access_log off; keepalive_requests 100000000; client_max_body_size 32m; client_body_buffer_size 2m;
 tcp_nodelay on; client_body_temp_path $folder/b; proxy_temp_path $folder/p; fastcgi_temp_path $folder/f;
 uwsgi_temp_path $folder/u; scgi_temp_path $folder/s;
 upstream u { server 127.0.0.1:$upstream_port; keepalive 1024; keepalive_requests 100000000; }
 server { listen 127.0.0.1:$port backlog=4096;
  location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } } }
"""
CADDY = """{
 admin off
 auto_https off
 log {
  output discard
 }
}
http://127.0.0.1:$port {
 reverse_proxy 127.0.0.1:$upstream_port {
  flush_interval -1
  transport http {
   keepalive_idle_conns_per_host 1024
  }
 }
}
"""
LITELLM = """model_list:
  - model_name: bench-model
    litellm_params: {model: openai/bench-model, api_base: "$upstream/v1", api_key: sk-upstream}
general_settings: {master_key: sk-bench}
litellm_settings: {set_verbose: false, json_logs: true, request_timeout: 600}
"""
LITELLM_ENVIRON = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

Found = tuple[System, str]
"""A system and its version."""


def peers() -> Iterator[Found]:
    """
    Every peer that is here, the upstream itself first.

    nginx and Caddy are looked for on the PATH. Portkey: node on the PATH, and its start-server.js in `BENCH_PORTKEY`.
    LiteLLM: its program in `BENCH_LITELLM`, or on the PATH.
    """
    yield System("direct"), ""
    for find in (_nginx, _relay, _floor, _caddy, _portkey, _litellm):
        if (found := find()) is not None:
            yield found


def _floor() -> Found:
    return System("floor", [sys.executable, str(HERE / "floor.py"), "$port", "$upstream_port"]), ""


def _relay() -> Found:
    command = [sys.executable, str(HERE / "relay.py"), "$port", "$upstream"]
    return System("relay", command), f"aiohttp {version('aiohttp')}, uvloop {version('uvloop')}"


def _nginx() -> Found | None:
    if (program := shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")) is None:
        return None
    run = [program, "-p", "$folder", "-c", "$conf", "-e", "stderr", "-g", _as_root()]
    return System("nginx", run, conf=NGINX), _version(program, "-v")


def _as_root() -> str:
    """Root's workers would become nobody, who may not read the bench's folder; others cannot say who they become."""
    return "user root;" if os.geteuid() == 0 else ""


def _caddy() -> Found | None:
    if (program := shutil.which("caddy")) is None:
        return None
    run = [program, "run", "--adapter", "caddyfile", "--config", "$conf"]
    environ = {"GOMAXPROCS": "1", "HOME": "$folder"}
    return System("caddy", run, conf=CADDY, environ=environ), _version(program, "version")


def _portkey() -> Found | None:
    server, node = os.environ.get("BENCH_PORTKEY"), shutil.which("node")
    if not server or node is None:
        return None
    headers = ["x-portkey-provider: openai", "x-portkey-custom-host: $upstream/v1", "Authorization: Bearer sk-upstream"]
    run = [node, server, "--port=$port", "--headless"]
    package = json.loads(Path(server).parent.parent.joinpath("package.json").read_text())
    return System("portkey", run, environ={"NODE_ENV": "production"}, headers=headers), str(package["version"])


def _litellm() -> Found | None:
    if (program := os.environ.get("BENCH_LITELLM") or shutil.which("litellm")) is None:
        return None
    run = [program, "--config", "$conf", "--host", "127.0.0.1", "--port", "$port", "--num_workers", "1"]
    system = System(
        "litellm",
        run,
        conf=LITELLM,
        conf_name="litellm.yaml",
        environ=LITELLM_ENVIRON,
        headers=["Authorization: Bearer sk-bench"],
        start_s=120,
    )
    return system, _version(program, "--version")


def _version(*command: str) -> str:
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    found = re.search(r"\d+\.\d+[\w.]*", said.stdout + said.stderr)
    return found[0] if found else "unknown"
