"""
What llmproxy costs beside a bare aiohttp relay, and nginx where it is on the PATH: ratios of one run.

Linux only: it reads /proc and pins processes. The fake upstream and the load share core 0, the proxy has core 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import uvloop

HERE = Path(__file__).resolve()
UPSTREAM, PROXY = 9700, 9701
URL = f"http://127.0.0.1:{PROXY}/v1/chat/completions"
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,'
    b'"delta":{"content":"one more word of it"},"logprobs":null,"finish_reason":null}]}\n\n'
)
REPLY = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"%b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":40,"completion_tokens":60,'
    b'"total_tokens":100}}' % (b"All that is said here is made up. " * 10)
)
NGINX = """worker_processes 1; daemon off; pid {dir}/pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; client_max_body_size 32m; client_body_buffer_size 2m;
 client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
 scgi_temp_path {dir}/s; upstream u {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1;
  proxy_set_header Connection ""; proxy_buffering off; }} }} }}"""
TOML = """[server]
port = {port}
max_body_bytes = 33554432
[server.log]
format = "json"
[llm.up]
provider = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
prices."*" = {{ input = "1.00", output = "2.00" }}
[processor.cache]
type = "cache"
[processor.cost_limit]
type = "cost_limit"
daily_usd = "1000000"
[[route]]
path_prefix = "/v1"
target_llm = "up"
operations = ["chat"]
processors = [{processors}]
"""
PROCESSORS = ("cache", "cost_limit")


def _head(kind: bytes, framing: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n" % (kind, framing)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    """Answers by the model's name: `plain`, or `N-MS`, a stream of N events MS milliseconds apart."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.data = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not found or len(body) < int(length[1] if length else 0):
            return
        self.data = b""
        model = re.search(rb'"model": ?"(\d+)-(\d+)"', body)
        if model is None:
            self.transport.write(_head(b"application/json", b"content-length: %d" % len(REPLY)) + REPLY)
            return
        self.transport.write(_head(b"text/event-stream", b"transfer-encoding: chunked"))
        self.send(int(model[1]), int(model[2]) / 1000)

    def send(self, events: int, delay_s: float) -> None:
        if not delay_s:
            self.transport.write(_chunk(EVENT) * events)
            events = 0
        if events:
            self.transport.write(_chunk(EVENT))
            asyncio.get_running_loop().call_later(delay_s, self.send, events - 1, delay_s)
        else:
            self.transport.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def upstream() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", UPSTREAM, backlog=4096)
    await server.serve_forever()


async def relay() -> None:
    """The simplest relay that aiohttp allows. No policy, no time-out, no log."""
    from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

    drop = {"host", "content-length", "transfer-encoding", "connection", "keep-alive"}
    session = ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None), auto_decompress=False)

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in drop}
        url = f"http://127.0.0.1:{UPSTREAM}{request.path_qs}"
        async with session.request(request.method, url, data=await request.read(), headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in drop}
            out = web.StreamResponse(status=answer.status, headers=kept)
            out.content_length = answer.content_length
            with suppress(ConnectionResetError):
                await out.prepare(request)
                async for chunk in answer.content.iter_any():
                    await out.write(chunk)
                await out.write_eof()
            return out

    app = web.Application(client_max_size=32 << 20)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PROXY, backlog=4096).start()
    await asyncio.Event().wait()


class Caller(asyncio.Protocol):
    """Sends one request after the other over one connection until *goes_on* says no."""

    def __init__(self, request: bytes, goes_on: Callable[[], bool], waits_s: list[float]) -> None:
        self.request, self.goes_on, self.waits_s = request, goes_on, waits_s
        self.ended = asyncio.get_running_loop().create_future()
        self.calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.ask()

    def ask(self) -> None:
        self.data, self.began_s, self.first = b"", time.perf_counter(), True
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self.first:
            if not data.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"not the expected answer: {data[:300]!r}")
            self.waits_s.append(time.perf_counter() - self.began_s)
            self.first = False
        self.data = (self.data + data)[-len(REPLY) - 2048 :]
        if not self.data.endswith((REPLY, b"0\r\n\r\n")):
            return
        self.calls += 1
        if self.goes_on():
            self.ask()
        else:
            self.transport.close()
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            raise SystemExit(f"the proxy closed a connection: {error}")


async def load(body: bytes, connections: int, seconds: float, header: str = "") -> tuple[int, float]:
    """The calls that were answered, and the median wait for a first byte in milliseconds."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{header}"
    asked = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    loop, waits_s, callers = asyncio.get_running_loop(), list[float](), list[Caller]()
    until = time.perf_counter() + seconds

    def caller() -> Caller:
        return Caller(asked, lambda: time.perf_counter() < until, waits_s)

    for _ in range(connections):
        callers.append((await loop.create_connection(caller, "127.0.0.1", PROXY))[1])
        await asyncio.sleep(0.5 / connections)  # not all in step
    await asyncio.gather(*(each.ended for each in callers))
    return sum(each.calls for each in callers), statistics.median(waits_s) * 1000


def tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from tree(int(child))


def cpu_s(pid: int) -> float:
    stats = [Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split() for each in tree(pid)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    texts = [Path(f"/proc/{each}/smaps_rollup").read_text() for each in tree(pid)]
    return sum(int(kb) for text in texts for kb in re.findall(r"^Pss: +(\d+)", text, re.MULTILINE)) / 1024


@contextmanager
def running(command: Iterable[str], core: int) -> Iterator[subprocess.Popen[bytes]]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # a child inherits it
    process = subprocess.Popen(list(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(0, before)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def ask(model: str, text: str) -> bytes:
    stream = "" if model == "plain" else ',"stream":true'
    return f'{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}]{stream}}}'.encode()


def measure(command: list[str], core: int, seconds: float) -> dict[str, float]:
    """One system, started for it."""
    began = time.perf_counter()
    small = ask("plain", "Name three primary colours and say a sentence about each. " * 3)
    found: dict[str, float] = {}
    with running(command, core) as process:
        while True:
            with suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(urllib.request.Request(URL, small, {"content-type": "application/json"}))
                break
            assert process.poll() is None, f"{command} ended"
            assert time.perf_counter() - began < 30, f"{command} gave no answer"
        found["cold start, s"] = time.perf_counter() - began
        found["idle memory, MB"] = memory_mb(process.pid)
        uvloop.run(load(small, 8, 1))  # warm

        def run(name: str, body: bytes, connections: int, chunks: int = 1, header: str = "") -> float:
            before = cpu_s(process.pid)
            calls, wait_ms = uvloop.run(load(body, connections, seconds, header))
            found[f"{name}, CPU us"] = (cpu_s(process.pid) - before) / (calls * chunks) * 1e6
            return wait_ms

        found["call alone, p50 ms"] = run("call alone", small, 1)
        run("call, 32 at once", small, 32)
        run("call that no cache may answer", small, 8, header="cache-control: no-cache\r\n")
        run("chunk, 32 bursts", ask("200-0", "Hello"), 32, 200)
        found["first byte, 100 paced streams, p50 ms"] = run("chunk, 100 paced streams", ask("50-20", "Hello"), 100, 50)
        run("call of 1.1 MB", ask("plain", "A long text. " * 85_000), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--processors", action="store_true", help="measure routes with a processor each, too")
    parser.add_argument("--rounds", type=int, default=3, help="through all systems; medians are printed")
    args = parser.parse_args()
    load_core, proxy_core = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory() as folder, running([sys.executable, str(HERE), "upstream"], load_core):
        Path(folder, "nginx.conf").write_text(NGINX.format(dir=folder, port=PROXY, upstream=UPSTREAM))
        systems = {"relay": [sys.executable, str(HERE), "relay"]}
        for name in ("llmproxy", *(PROCESSORS if args.processors else ())):
            file = Path(folder, f"{name}.toml")
            between = "" if name == "llmproxy" else f'"{name}"'
            file.write_text(TOML.format(port=PROXY, upstream=UPSTREAM, processors=between))
            systems[name] = [sys.executable, "-m", "llmproxy_server", "serve", "--config", str(file)]
        if nginx := shutil.which("nginx"):
            systems["nginx"] = [nginx, "-p", folder, "-c", f"{folder}/nginx.conf", "-e", "stderr"]
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
        for _ in range(args.rounds):  # interleaved: a slow spell of the machine hits all
            for name, command in systems.items():
                rounds[name].append(measure(command, proxy_core, args.seconds))
    print(f"{'':40}" + "".join(f"{name:>12}" for name in systems) + f"{'llmproxy/relay':>18}")
    for what in rounds["relay"][0]:
        values = {name: statistics.median(each[what] for each in found) for name, found in rounds.items()}
        print(f"{what:40}" + "".join(f"{value:12.2f}" for value in values.values()), end="")
        print(f"{values['llmproxy'] / values['relay']:18.2f}")


if __name__ == "__main__":
    parts = {"upstream": upstream, "relay": relay}
    if len(sys.argv) == 2 and sys.argv[1] in parts:
        uvloop.run(parts[sys.argv[1]]())
    else:
        main()
