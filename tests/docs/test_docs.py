"""Every command and code block of the documentation does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import llmproxy_parley
import llmproxy_word_guard
import pytest
import tomli

from llmproxy_core.config import structure
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.plugins import Registry
from tests.docs.blocks import ROOT, Block, blocks, commands, documents

LANGUAGES = {"sh", "python", "toml", "json", "ini", "nginx", "yaml", "text"}
"""
What a block may be; `text` is shown, never run: pictures and output.

`ini` is a unit of systemd, `yaml` a configuration or rules of Prometheus: test_servers.py gives them to these.
"""

TARGETS = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
PROVIDER_KEYS = ("OPENAI_API_KEY", "OPENAI_API_KEY_2", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY")
DEMO: dict[str, Any] = {
    "llm": {"demo": {"provider": "demo"}},
    "route": [{"path_prefix": "/v1", "target_llm": "demo"}],
}


def test_every_block_says_what_it_is() -> None:
    unknown = [f"{block} is {block.language!r}" for block in blocks() if block.language not in LANGUAGES]

    assert unknown == []


def test_every_relative_link_leads_somewhere() -> None:
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents()
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]

    assert dead == []


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_a_json_block_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_toml_block_loads(block: Block) -> None:
    """A block without routes is a part of a file: the demo completes it."""
    written = tomli.loads(block.text)
    mapping = written if "route" in written else {**DEMO, **written, "llm": {**DEMO["llm"], **written.get("llm", {})}}

    config, _ = structure(mapping, registry(), dict.fromkeys(PROVIDER_KEYS, "key-of-the-test"))

    assert config.routes


def registry() -> Registry:
    """What is installed, and the examples of third parties."""
    installed, third = Registry.load(), Registry.of(llmproxy_word_guard, llmproxy_parley)
    return attrs.evolve(
        installed,
        processors=FrozenMap({**installed.processors, **third.processors}),
        providers=FrozenMap({**installed.providers, **third.providers}),
        dialects=FrozenMap({**installed.dialects, **third.dialects}),
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of `llmproxy serve` on its embedded default."""
    with subprocess.Popen(
        [sys.executable, "-m", "llmproxy_server", "serve", "--port", "0"],
        cwd=tmp_path_factory.mktemp("server"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = listening(process)
        yield url
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


def listening(process: subprocess.Popen[str]) -> str:
    """The URL that a starting server names."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if (found := re.search(r"http://127\.0\.0\.1:\d+", line)) is not None:
            return found[0]
    raise AssertionError(f"the server did not start:\n{said}")


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_python_block_runs(block: Block, server: str, tmp_path: Path) -> None:
    code = block.text.replace("http://127.0.0.1:3000", server)

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_the_commands_of_a_shell_block_succeed(block: Block, server: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "config.example.toml", tmp_path)
    for command in commands(block):
        if command.startswith("make "):
            _check_target(command)  # run for real in tests/packaging, in a clone
        elif "llmproxy serve" in command:
            _serve(command, tmp_path)
        else:
            _run(command.replace("http://127.0.0.1:3000", server), tmp_path)


def _check_target(command: str) -> None:
    targets = TARGETS.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert command.split()[1] in targets, f"no such target: {command}"


def _run(command: str, folder: Path) -> None:
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    assert ran.stdout or ran.stderr, f"{command} says nothing"


def _serve(command: str, folder: Path) -> None:
    """Start it on a free port, and stop it as Ctrl-C does."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command} --port 0"],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        listening(process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
