"""The tutorials work, step by step, from an empty folder; what they build is the example that is in the repository."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, TUTORIALS, Block, blocks_of, commands
from tests.docs.test_docs import listening

EXAMPLE = ROOT / "docs" / "examples" / "llmproxy-word-guard"
WRITTEN = {"python", "toml"}

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("tutorial"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """
    The variables of a shell in an environment of its own, which has all that this one has.

    What the tutorial installs goes there, and is built with what is here: nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("tutorial") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=60)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # `addsitedir`, since the checkout itself is on the path by a .pth file of that folder.
    here = sysconfig.get_path("purelib")
    (Path(site.stdout.strip()) / "all.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    for command, module in (("llmproxy", "llmproxy_server"), ("pytest", "pytest")):
        script = folder / "bin" / command
        script.write_text(f'#!/bin/sh\nexec "{python}" -m {module} "$@"\n')
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # the variable means the opposite of its name: pip's own way
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": "",
    }


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.name)
def test_a_tutorial_works_from_an_empty_folder(tutorial: Path, environment: dict[str, str], tmp_path: Path) -> None:
    for block in blocks_of(tutorial):
        if block.language in WRITTEN:
            assert block.file is not None, f"{block} does not say which file it is"
            assert (tmp_path / block.file).exists(), f"{block}: {block.file} is not there to be changed"
            (tmp_path / block.file).write_text(block.text)
        elif block.language == "sh":
            for command in commands(block):
                _run(block, command, environment, tmp_path)


def _run(block: Block, command: str, environment: dict[str, str], folder: Path) -> None:
    if "llmproxy serve" in command:
        _serve(command, environment, folder)
        return
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, f"{block}: {command}\n{ran.stdout}{ran.stderr}"


def _serve(command: str, environment: dict[str, str], folder: Path) -> None:
    """Start it, and ask for the word."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command} --port 0"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = listening(process)
        asked = '{"model": "demo", "messages": [{"role": "user", "content": "Who was Daedalus?"}]}'
        curl = ["curl", "-s", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", asked]
        said = subprocess.run(curl, capture_output=True, text=True, timeout=20, check=True)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert '"code": "guardrail_blocked"' in re.sub(r'"code":"', '"code": "', said.stdout)
    assert process.returncode == 0


def test_the_example_is_what_the_tutorial_builds() -> None:
    (tutorial,) = TUTORIALS
    for block in blocks_of(tutorial):
        if block.language == "python":
            assert block.file is not None
            assert (EXAMPLE / Path(block.file).name).read_text() == block.text, block.file
        elif block.language == "toml":
            assert (EXAMPLE / "config.toml").read_text().endswith(block.text)
