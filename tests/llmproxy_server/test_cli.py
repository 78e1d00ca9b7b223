"""The command as a whole: help, version, what it imports, its exit codes, how it behaves in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from llmproxy_server.cli import LOG_LEVELS
from llmproxy_server.variables import LEVELS
from tests.llmproxy_server.cli_process import COMMAND, TIMEOUT_S, environment, install_plugin, llmproxy

VALID = """
[llm.demo]
provider = "demo"

[[route]]
path_prefix = "/v1"
target_llm = "demo"
"""

HEAVY = {"aiohttp", "uvloop", "opentelemetry", "google", "grpc", "requests", "yarl", "multidict", "email.message"}

PRINT_MODULES = """
import json, sys
from llmproxy_server.cli import main
sys.argv = ["llmproxy", *sys.argv[1:]]
code = main()
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    """What is imported once `llmproxy ARGUMENTS` has done its work."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_MODULES, *arguments],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


# -- light -----------------------------------------------------------------------------------------------------------


def test_check_imports_nothing_that_only_serving_needs(tmp_path: Path) -> None:
    (tmp_path / "valid.toml").write_text(VALID)

    modules = modules_after("check", "valid.toml", cwd=tmp_path)

    assert "llmproxy_core.gateway" in modules
    assert modules & (HEAVY - {"email.message"}) == set()


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help_import_neither_the_core_nor_asyncio(argument: str, tmp_path: Path) -> None:
    modules = modules_after(argument, cwd=tmp_path)

    light = {"llmproxy_core", "llmproxy_openai", "asyncio", "ssl", "msgspec", "attrs", "pluggy", "tomli", "dotenv"}
    assert modules & (light | HEAVY - {"email.message"}) == set()


# -- help and version ------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_distribution(tmp_path: Path) -> None:
    ran = llmproxy("--version", cwd=tmp_path)

    assert (ran.code, ran.out, ran.err) == (0, f"llmproxy {version('llmproxy')}\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)], ids=["nothing", "--help", "-h"])
def test_help_names_every_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ran = llmproxy(*arguments, cwd=tmp_path)

    assert ran.code == 0
    assert ran.out.startswith("Usage: llmproxy ")
    for command in ("serve", "check", "explain", "plugins", "schema"):
        assert f"\n  {command} " in ran.out


def test_the_levels_of_the_command_line_are_those_of_the_environment() -> None:
    assert LOG_LEVELS == LEVELS  # written out in cli.py, where the import would be heavy


# -- exit codes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("check",),
        ("serve", "--port", "70000"),
        ("serve", "--port", "many"),
        ("serve", "--log-level", "loud"),
        ("explain", "GET"),
        ("serve", "--nosuch"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_said_and_exits_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ran = llmproxy(*arguments, cwd=tmp_path)

    assert ran.code == 2
    assert ran.out == ""
    assert "Error:" in ran.err
    assert "Traceback" not in ran.err


BUG = """
from llmproxy_core import LLMConfig, ProviderType, hookimpl

class Buggy:
    def __init__(self, config, services):
        pass

    @property
    def models(self):
        raise ZeroDivisionError("a detail nobody outside should see")

    async def send(self, exchange):
        raise ZeroDivisionError("a detail nobody outside should see")

    async def aclose(self):
        pass

@hookimpl
def llmproxy_providers():
    return [ProviderType("buggy", LLMConfig, Buggy)]
"""


@pytest.mark.parametrize("debug", ["", "true"])
def test_a_bug_gives_a_sentence_and_a_traceback_only_on_demand(debug: str, tmp_path: Path) -> None:
    install_plugin(tmp_path, "buggy", BUG)
    (tmp_path / "buggy.toml").write_text(VALID.replace('"demo"\n\n', '"buggy"\n\n'))

    ran = llmproxy("check", "buggy.toml", cwd=tmp_path, PYTHONPATH=str(tmp_path), PROXY_API_DEBUG=debug)

    assert ran.code == 70
    assert "internal error (ZeroDivisionError)" in ran.err
    assert ("Traceback" in ran.err, "a detail" in ran.err) == (bool(debug), bool(debug))


FACTORY = """
from llmproxy_core import LLMConfig, ProviderType, hookimpl

def build(config, services):
    raise ZeroDivisionError("none are left")

@hookimpl
def llmproxy_providers():
    return [ProviderType("buggy", LLMConfig, build)]
"""


def test_a_plugin_that_cannot_build_is_a_problem_that_names_it(tmp_path: Path) -> None:
    install_plugin(tmp_path, "buggy", FACTORY)
    (tmp_path / "buggy.toml").write_text(VALID.replace('"demo"\n\n', '"buggy"\n\n'))

    ran = llmproxy("check", "buggy.toml", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert ran.code == 1
    assert "llmproxy_buggy of llmproxy-buggy could not build it (ZeroDivisionError: none are left)" in ran.err
    assert "internal error" not in ran.err


# -- pipes and terminals ---------------------------------------------------------------------------------------------


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, "plugins"],
            cwd=tmp_path, env=environment(), stdout=pipe, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "plugins"],
            cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    assert done.returncode == 74
    assert done.stderr == b"llmproxy: the output cannot be written: No space left on device\n"


def on_a_terminal(tmp_path: Path, *arguments: str, **variables: str) -> bytes:
    """What `llmproxy ARGUMENTS` writes to a terminal."""
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment(TERM="xterm", **variables),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            timeout=TIMEOUT_S,
            check=False,
        )
        os.set_blocking(ours, False)
        return os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


def test_colour_is_for_terminals_and_those_who_want_it(tmp_path: Path) -> None:
    (tmp_path / "valid.toml").write_text(VALID)

    coloured = on_a_terminal(tmp_path, "check", "valid.toml")
    unwanted = on_a_terminal(tmp_path, "check", "valid.toml", NO_COLOR="1")
    piped = llmproxy("check", "valid.toml", cwd=tmp_path)

    assert b"\x1b[" in coloured
    assert b"\x1b[" not in unwanted
    assert b"is valid" in unwanted
    assert "\x1b" not in piped.out


def test_an_old_locale_gets_the_output_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(f'[[route]]\npath_prefix = "/v1"\ntarget_llm = "{"ä" * 80}"\n')

    ran = llmproxy("check", "wrong.toml", cwd=tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")

    assert ran.code == 1
    assert "Traceback" not in ran.err


WAITS = """
import threading
with open("fifo", "w") as fifo:
    fifo.write("here")
threading.Event().wait(20)
"""


def test_ctrl_c_before_anything_runs_is_quiet(tmp_path: Path) -> None:
    install_plugin(tmp_path, "waits", WAITS)
    os.mkfifo(tmp_path / "fifo")

    with subprocess.Popen(
        [*COMMAND, "plugins"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with (tmp_path / "fifo").open() as fifo:
            assert fifo.read() == "here"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)

    assert (process.returncode, out, err.strip()) == (130, "", "")
