"""`llmproxy serve` reloads: by SIGHUP, by a change of its file, by the admin call, as an operator sees it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.llmproxy_server.cli_process import COMMAND, TIMEOUT_S, environment, install_plugin
from tests.llmproxy_server.test_cli_serve import Serving, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")

DEMO = """\
[llm.demo]
provider = "demo"
models = ["demo", "{model}"]

[[route]]
path_prefix = "/v1"
target_llm = "demo"
"""
JSON_LOG = '[server]\nlog = {format = "json"}\n'
KEY = "sk-first-0123456789abcdef"


def said(proxy: Serving, message: str) -> dict[str, Any]:
    """The next line of the log that says *message*."""
    assert proxy.process.stderr is not None
    seen = ""
    for line in proxy.process.stderr:
        seen += line
        if line.startswith("{") and (fields := json.loads(line))["message"].startswith(message):
            return fields  # type: ignore[no-any-return]
    raise AssertionError(f"it never said {message!r}:\n{seen}")


def models(proxy: Serving) -> list[str]:
    return [it["id"] for it in json.loads(proxy.request("GET", "/v1/models")[1])["data"]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.toml"
    path.write_text(JSON_LOG + DEMO.format(model="first"))
    return path


def serve(file: Path, **variables: str) -> Any:
    return serving(file.parent, "--config", file.name, "--port", "0", **variables)


def hang_up(proxy: Serving) -> None:
    proxy.process.send_signal(signal.SIGHUP)


# -- SIGHUP ----------------------------------------------------------------------------------------------------------


def test_sighup_reads_the_file_again(file: Path) -> None:
    with serve(file) as proxy:
        assert models(proxy) == ["demo", "first"]
        file.write_text(JSON_LOG + DEMO.format(model="second"))
        hang_up(proxy)

        line = said(proxy, "reloaded")

        assert (line["cause"], line["generation"], line["changes"]) == ("SIGHUP", 2, ["llm.demo changed (models)"])
        assert models(proxy) == ["demo", "second"]
        hang_up(proxy)
        assert said(proxy, "reloaded")["message"] == "reloaded: unchanged"
        assert proxy.end(signal.SIGTERM)[0] == 0


SLOW = """
import pathlib, time
pathlib.Path("begun").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.01)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, None), (signal.SIGUSR2, None), (signal.SIGTERM, 0)])
def test_a_signal_that_comes_while_it_starts_does_not_kill_it(
    number: signal.Signals, code: int | None, workers: str, file: Path
) -> None:
    install_plugin(file.parent, "slow", SLOW)
    command = [*COMMAND, "serve", "--config", file.name, "--port", "0", "--workers", workers]
    with subprocess.Popen(
        command, cwd=file.parent, env=environment(PYTHONPATH=str(file.parent)), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not (file.parent / "begun").exists():
                threading.Event().wait(0.01)
            process.send_signal(number)
            if code is None:
                (file.parent / "go").touch()
                assert process.stderr is not None
                assert any("Stop it with Ctrl-C" in line for line in process.stderr)
                process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == (code or 0)
        finally:
            process.kill()


def test_a_broken_file_is_told_with_its_lines_and_the_old_one_goes_on(file: Path) -> None:
    with serve(file) as proxy:
        file.write_text(file.read_text().replace('"demo"\nmodels', '"demmo"\nmodels') + "[nonsense]\n")
        hang_up(proxy)

        refused = said(proxy, "not reloaded")
        problems = [said(proxy, "a problem of the configuration") for _ in range(refused["problems"])]

        assert [(it["line"], it["path"]) for it in problems] == [(4, "llm.demo.provider"), (10, "nonsense")]
        assert 'did you mean "demo"?' in problems[0]["problem"]
        assert models(proxy) == ["demo", "first"]
        health = json.loads(proxy.request("GET", "/health")[1])
        assert health["status"] == "degraded"
        assert [it["code"] for it in health["reasons"]] == ["reload_failed"]
        metrics = proxy.request("GET", "/api/metrics")[1]
        assert re.search(r'^llmproxy_reloads_total\{result="failed"\} 1(\.0)?$', metrics, re.MULTILINE)
        assert re.search(r"^llmproxy_last_reload_ok 0(\.0)?$", metrics, re.MULTILINE)
        file.write_text(JSON_LOG + DEMO.format(model="second"))
        hang_up(proxy)
        said(proxy, "reloaded")
        assert json.loads(proxy.request("GET", "/health")[1])["status"] == "ok"
        assert re.search(r"^llmproxy_last_reload_ok 1(\.0)?$", proxy.request("GET", "/api/metrics")[1], re.MULTILINE)


def test_the_command_line_still_wins_after_a_reload(file: Path) -> None:
    with serving(file.parent, "--config", file.name, "--port", "0", "--log-level", "debug") as proxy:
        file.write_text('[server]\nport = 1\nlog = {format = "json", level = "error"}\n' + DEMO.format(model="second"))
        hang_up(proxy)

        line = said(proxy, "reloaded")

        assert line["changes"] == ["llm.demo changed (models)"]


def test_the_form_and_the_level_of_the_log_change(file: Path) -> None:
    with serve(file) as proxy:
        text = DEMO.format(model="first")
        file.write_text('[server]\nlog = {format = "json", level = "debug"}\n' + text)
        hang_up(proxy)
        said(proxy, "reloaded")
        assert proxy.request("GET", "/livez")[0] == 200
        assert said(proxy, "exchange")["path"] == "/livez"  # at debug only
        file.write_text('[server]\nlog = {format = "text"}\n' + text)
        assert proxy.request("POST", "/api/reload")[0] == 200
        assert proxy.request("POST", "/v1/nothing", {})[0] == 404
        _, rest = proxy.end(signal.SIGTERM)

    assert not rest.splitlines()[-1].startswith("{")


def test_without_a_file_the_environment_is_read_again(tmp_path: Path) -> None:
    variables = {"LOG_FORMAT": "json"}
    with serving(tmp_path, "--port", "0", **variables) as proxy:
        assert "gpt-4o" not in models(proxy)
        (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\n")
        hang_up(proxy)

        line = said(proxy, "reloaded")

        assert "llm.openai added" in line["changes"]
        health = json.loads(proxy.request("GET", "/health")[1])
        assert set(health["llms"]) == {"openai", "demo", "default"}
        _, rest = proxy.end(signal.SIGTERM)
        assert KEY not in rest + json.dumps(line)


def test_a_terminal_that_is_closed_ends_the_proxy_as_it_ends_any_program(file: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        # The first terminal that the leader of a session opens becomes its own.
        ["sh", "-c", 'exec "$@" <"$0"', os.ttyname(follower), *COMMAND, "serve", "--config", file.name, "--port", "0"],
        cwd=file.parent,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        os.close(follower)
        assert process.stderr is not None
        while not process.stderr.readline().startswith("Stop it with"):
            pass
        process.send_signal(signal.SIGHUP)  # the terminal is there: this one means a reload
        while "unchanged" not in process.stderr.readline():
            pass
        os.close(leader)

        assert process.wait(timeout=TIMEOUT_S) == 0


# -- the file changes ------------------------------------------------------------------------------------------------

WATCHED = '[server]\nwatch = true\nlog = {format = "json"}\n'


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def renamed_over(file: Path, text: str) -> None:
    """As vim and most editors write."""
    beside = file.with_name(".proxy.toml.swp")
    beside.write_text(text)
    beside.rename(file)


def gone_for_a_moment(file: Path, text: str) -> None:
    """As editors do that keep the old one."""
    file.rename(file.with_name("proxy.toml~"))
    file.write_text(text)


@pytest.mark.parametrize("write", [in_place, renamed_over, gone_for_a_moment])
def test_a_file_that_is_watched_is_reloaded_when_it_changes(write: Any, file: Path) -> None:
    file.write_text(WATCHED + DEMO.format(model="first"))
    with serve(file) as proxy:
        for model in ("second", "third"):
            write(file, WATCHED + DEMO.format(model=model))

            line = said(proxy, "reloaded")

            assert line["cause"] == "file"
            assert models(proxy) == ["demo", model]
        code, rest = proxy.end(signal.SIGTERM)
        assert code == 0
        assert "no such file" not in rest


def test_a_mounted_config_map_is_reloaded_when_its_link_is_swapped(tmp_path: Path) -> None:
    """Kubernetes writes a folder, and swaps the link `..data` that the file's own link leads through."""

    def publish(version: str) -> None:
        made = tmp_path / f"..{version}"
        made.mkdir()
        (made / "proxy.toml").write_text(WATCHED + DEMO.format(model=version))
        (tmp_path / "..data_tmp").symlink_to(made.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("first")
    file = tmp_path / "proxy.toml"
    file.symlink_to("..data/proxy.toml")
    with serve(file) as proxy:
        for version in ("second", "third"):
            publish(version)
            assert said(proxy, "reloaded")["generation"] > 1
            assert models(proxy) == ["demo", version]


def test_a_changed_environment_file_is_reloaded_too(file: Path) -> None:
    file.write_text(WATCHED + DEMO.format(model="first"))
    with serve(file) as proxy:
        (file.parent / ".env").write_text("LOG_LEVEL=debug\n")

        assert said(proxy, "reloaded")["changes"] == ["server changed (log.level)"]


def test_a_broken_file_that_is_watched_is_told_once_and_mended(file: Path) -> None:
    file.write_text(WATCHED + DEMO.format(model="first"))
    with serve(file) as proxy:
        file.write_text("nonsense")
        said(proxy, "not reloaded")
        file.write_text(WATCHED + DEMO.format(model="second"))
        assert said(proxy, "reloaded")["generation"] == 2
        code, rest = proxy.end(signal.SIGTERM)

    assert (code, "not reloaded" in rest) == (0, False)


def test_watching_begins_and_ends_by_a_reload(file: Path) -> None:
    with serve(file) as proxy:
        file.write_text(WATCHED + DEMO.format(model="second"))
        hang_up(proxy)
        said(proxy, "reloaded")
        file.write_text(JSON_LOG + DEMO.format(model="third"))
        assert said(proxy, "reloaded")["cause"] == "file"
        file.write_text(JSON_LOG + DEMO.format(model="fourth"))
        hang_up(proxy)
        assert said(proxy, "reloaded")["cause"] == "SIGHUP"


def test_the_watcher_is_imported_only_where_it_is_asked_for(file: Path) -> None:
    program = (
        "import sys, llmproxy_server.cli_serve\n"
        "found = sorted({'watchfiles', 'anyio'} & set(sys.modules))\n"
        "raise SystemExit(str(found) if found else 0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 0, ran.stderr


# -- the admin call --------------------------------------------------------------------------------------------------


def test_the_admin_call_reloads_and_is_in_the_log(file: Path) -> None:
    with serve(file) as proxy:
        file.write_text(JSON_LOG + DEMO.format(model="second"))
        status, body = proxy.request("POST", "/api/reload")

        assert (status, json.loads(body)["changes"]) == (200, ["llm.demo changed (models)"])
        assert said(proxy, "reloaded")["cause"] == "admin"


# -- secrets ---------------------------------------------------------------------------------------------------------


def test_new_keys_and_old_ones_stay_out_of_the_log(file: Path) -> None:
    second = "sk-second-0123456789abcdef"
    llm = '[llm.a]\nprovider = "openai"\nbase_url = "http://127.0.0.1:9/v1"\ntoken_env = "A_KEY"\n'
    route = '[[route]]\npath_prefix = "/a"\ntarget_llm = "a"\n'
    file.write_text(JSON_LOG + llm + route)
    (file.parent / ".env").write_text(f"A_KEY={KEY}\n")
    with serve(file) as proxy:
        (file.parent / ".env").write_text(f"A_KEY={second}\n")
        hang_up(proxy)
        assert said(proxy, "reloaded")["changes"] == ["llm.a changed (token)"]
        for key in (KEY, second):
            proxy.request("GET", f"/nothing/{key}")  # paths are in the log
        _, rest = proxy.end(signal.SIGTERM)

    assert rest.count("/nothing/***") == 2
    assert KEY not in rest
    assert second not in rest
