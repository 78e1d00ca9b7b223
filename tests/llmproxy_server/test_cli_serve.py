"""`llmproxy serve` as an operator has it: a process that says where it listens, serves, and ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.llmproxy_server.cli_process import COMMAND, TIMEOUT_S, environment, install_plugin, llmproxy

SECRET = "sk-abcdefgh12345678"
QUESTION = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "What is a proxy?"}]}


@attrs.define
class Serving:
    """A process that serves. *banner* is what it has said, up to its last line."""

    process: subprocess.Popen[str]
    port: int
    banner: str

    def request(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send the signal; the exit code, and what was said after the banner."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, rest


@contextmanager
def serving(cwd: Path, *arguments: str, command: Sequence[str] = COMMAND, **variables: str) -> Iterator[Serving]:
    """`llmproxy serve ARGUMENTS`, once its banner is complete; killed at the end if it still runs."""
    with subprocess.Popen(
        [*command, "serve", *arguments],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            lines: list[str] = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith("Stop it with"):
                    break
            banner = "".join(lines)
            found = re.search(r"is listening on https?://\S+:(\d+)\n", banner)
            assert found is not None, banner
            yield Serving(process, int(found[1]), banner)
        finally:
            process.kill()


# -- serving ---------------------------------------------------------------------------------------------------------


def test_the_embedded_default_streams_an_answer_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as proxy:
        status, text = proxy.request("POST", "/v1/chat/completions", QUESTION)

    assert status == 200
    assert text.count("data: ") > 3
    assert text.endswith("data: [DONE]\n\n")


def test_port_0_is_said_as_the_port_it_became(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as proxy:
        status, _ = proxy.request("GET", "/livez")

    assert proxy.port > 0
    assert status == 200
    assert proxy.banner.count(f":{proxy.port}") >= 2  # the first line, and the command to try


def test_the_command_of_the_banner_works_as_it_stands(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as proxy:
        command = proxy.banner.split("Try it:\n")[1].splitlines()[0].strip()
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment()
        )
        if done.returncode == 127:
            pytest.skip("no curl here")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0_without_a_traceback(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as proxy:
        code, rest = proxy.end(number)

    assert code == 0
    assert "Traceback" not in rest


def test_nothing_is_written_to_stdout(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as proxy:
        proxy.process.send_signal(signal.SIGTERM)
        out, _ = proxy.process.communicate(timeout=TIMEOUT_S)

    assert out == ""


def _pipe_that_nobody_reads() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "output",
    [
        pytest.param(_pipe_that_nobody_reads, id="a pipe that nobody reads"),
        pytest.param(
            _full_disk,
            id="a full disk",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux"),
        ),
    ],
)
def test_it_serves_when_its_output_cannot_be_written(output: Callable[[], int], workers: str, tmp_path: Path) -> None:
    writing = output()
    assert _served(tmp_path, [*COMMAND, "serve", "--workers", workers], writing) == (200, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no shell that closes descriptors")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_with_its_standard_descriptors_closed(workers: str, tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, "serve", "--workers", workers]
    assert _served(tmp_path, closed, os.open(os.devnull, os.O_WRONLY)) == (200, 0)


def _served(folder: Path, command: Sequence[str], output: int) -> tuple[int, int]:
    """What /livez answers, and the exit code after SIGTERM; *output* is closed."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with subprocess.Popen(
        [*command, "--port", str(port)], cwd=folder, env=environment(), stdout=output, stderr=output
    ) as process:
        os.close(output)
        try:
            status = poll(port)
            process.send_signal(signal.SIGTERM)
            return status, process.wait(timeout=TIMEOUT_S)
        finally:
            process.kill()


def poll(port: int) -> int:
    """The status of /livez, once somebody listens: nothing else tells, with the banner gone."""
    due = time.monotonic() + TIMEOUT_S
    while time.monotonic() < due:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
        finally:
            connection.close()
    raise AssertionError("nobody listens")


# -- plugins that could not be used ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        ("raise SystemExit(3)", "cannot be imported (SystemExit: 3)"),
        ("def broken(:", "cannot be imported (SyntaxError: invalid syntax"),
        (
            "from llmproxy_core import hookimpl\n@hookimpl\ndef llmproxy_processors():\n    return None, 3\n",
            "TypeError: expected a ProcessorType, got None",
        ),
    ],
    ids=["missing module", "exits", "syntax", "wrong type"],
)
def test_a_broken_plugin_is_named_at_start_and_the_others_serve(tmp_path: Path, source: str, reason: str) -> None:
    install_plugin(tmp_path, "broken", source)

    with serving(tmp_path, "--port", "0", PYTHONPATH=str(tmp_path)) as proxy:
        status, _ = proxy.request("POST", "/v1/chat/completions", QUESTION)

    assert status == 200
    assert f"warning: plugins: llmproxy_broken of llmproxy-broken could not be used: {reason}" in proxy.banner


def test_a_route_that_needs_a_broken_plugin_is_not_served_and_the_plugin_is_named(tmp_path: Path) -> None:
    install_plugin(tmp_path, "broken", "import no_such_module")
    (tmp_path / "config.toml").write_text(
        '[llm.a]\nprovider = "broken"\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\n'
    )

    ran = llmproxy("serve", "--config", "config.toml", "--port", "0", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert (ran.code, ran.out) == (2, "")
    assert 'line 2: llm.a.provider: no provider "broken"' in ran.err
    assert "llmproxy_broken of llmproxy-broken: cannot be imported" in ran.err
    assert "Traceback" not in ran.err


# -- settings --------------------------------------------------------------------------------------------------------


def test_flags_win_over_the_environment_and_that_over_env_file_and_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PROXY_API_PORT=1\nLOG_LEVEL=error\nOPENAI_API_KEY=" + SECRET + "\n")
    (tmp_path / "config.toml").write_text(
        '[server]\nport = 2\nlog.level = "debug"\nmax_in_flight = 7\n'
        '[llm.a]\nprovider = "demo"\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\n'
    )

    with serving(tmp_path, "--config", "config.toml", "--port", "0", LOG_LEVEL="warn") as proxy:
        banner = proxy.banner

    assert re.search(r"port +\d+ \(command line\)", banner)
    assert re.search(r"log level +warn \(LOG_LEVEL\)", banner)
    assert re.search(r"configuration +config\.toml\n", banner)


def test_the_log_level_of_the_command_line_is_obeyed(tmp_path: Path) -> None:
    said = {}
    for level in ("info", "ERROR"):
        with serving(tmp_path, "--port", "0", "--log-level", level) as proxy:
            proxy.request("GET", "/v1/models")
            said[level] = proxy.end(signal.SIGTERM)[1]

    assert "/v1/models" in said["info"]
    assert "/v1/models" not in said["ERROR"]


def test_a_key_of_the_env_file_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\n")

    with serving(tmp_path, "--port", "0", "--log-level", "trace") as proxy:
        proxy.request("GET", "/health")
        code, rest = proxy.end(signal.SIGTERM)

    assert code == 0
    assert "OPENAI_API_KEY (openai)" in proxy.banner
    assert SECRET not in proxy.banner + rest


# -- what cannot be served -------------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_sentence_and_exits_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = llmproxy("serve", "--port", str(port), cwd=tmp_path)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"llmproxy: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "stop the program that listens there, or choose another port with --port\n"
    )


def test_every_problem_is_printed_before_anything_listens(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text('[[route]]\npath_prefix = "v1"\ntarget_llm = "nowhere"\n')

    ran = llmproxy("serve", "--config", "wrong.toml", cwd=tmp_path, PORT="many")

    assert (ran.code, ran.out) == (2, "")
    first, *_ = ran.err.splitlines()
    assert first == "wrong.toml has 3 problems:"
    assert {"PORT", "path_prefix", "nowhere"} <= set(re.findall(r"PORT|path_prefix|nowhere", ran.err))


def test_an_open_address_without_consent_is_refused(tmp_path: Path) -> None:
    ran = llmproxy("serve", "--host", "0.0.0.0", cwd=tmp_path)

    assert ran.code == 2
    assert "allow_anonymous" in ran.err
    assert "listening" not in ran.err


def test_a_certificate_that_is_none_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("this is no certificate\n")
    (tmp_path / "config.toml").write_text(
        '[server]\ntls_certificate = "not.pem"\ntls_key = "not.pem"\n'
        '[llm.a]\nprovider = "demo"\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\n'
    )

    ran = llmproxy("serve", "--config", "config.toml", "--port", "0", cwd=tmp_path)

    assert ran.code == 2
    assert ran.err.startswith("config.toml has 1 problem:\n  line 2: server.tls_certificate: ")
    assert "Traceback" not in ran.err
