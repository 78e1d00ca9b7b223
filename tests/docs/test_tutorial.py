"""The tutorials work, step by step, from an empty folder; what they build is the example that is in the repository."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import attrs
import pytest

from tests.docs.blocks import ROOT, TUTORIALS, Block, blocks_of, commands
from tests.docs.test_docs import listening

WRITTEN = {"python", "toml"}


@attrs.frozen
class Built:
    """What a tutorial builds: the folder in docs/examples, and what it hears (a pattern) when it asks."""

    example: str
    path: str
    asks: str
    hears: str
    goes_on: bool = False
    """Its files are changed ones of `llmproxy plugin new`, not new ones."""

    @property
    def folder(self) -> Path:
        return ROOT / "docs" / "examples" / self.example


BUILT = {
    "WRITING_PROCESSORS.md": Built(
        "llmproxy-word-guard",
        "/v1/chat/completions",
        '{"model": "demo", "messages": [{"role": "user", "content": "Who was Daedalus?"}]}',
        '"code": ?"guardrail_blocked"',
        goes_on=True,
    ),
    "IMPLEMENTING_PROVIDERS.md": Built(
        "llmproxy-parley",
        "/v1/talk",
        '{"model": "demo", "limit": 200, "turns": [{"who": "human", "says": "Who was Daedalus?"}]}',
        '"says": ?"[^"]+".*"ended": ?"done"',
    ),
}

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(180)]


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
    built = BUILT[tutorial.name]
    for block in blocks_of(tutorial):
        if block.language in WRITTEN:
            _write(block, tmp_path, built)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "sh":
            for command in commands(block):
                _run(block, command, environment, tmp_path, built)


def _write(block: Block, folder: Path, built: Built) -> None:
    assert block.file is not None, f"{block} does not say which file it is"
    assert (folder / block.file).exists() is built.goes_on, f"{block}: is {block.file} there to be changed?"
    (folder / block.file).write_text(block.text)


def _run(block: Block, command: str, environment: dict[str, str], folder: Path, built: Built) -> None:
    if "llmproxy serve" in command:
        _serve(command, environment, folder, built)
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


def _serve(command: str, environment: dict[str, str], folder: Path, built: Built) -> None:
    """Start it, and ask it something."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command} --port 0"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = listening(process)
        curl = ["curl", "-s", f"{url}{built.path}", "-H", "Content-Type: application/json", "-d", built.asks]
        said = subprocess.run(curl, capture_output=True, text=True, timeout=20, check=True)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert re.search(built.hears, said.stdout), said.stdout
    assert process.returncode == 0


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.name)
def test_the_example_is_what_the_tutorial_builds(tutorial: Path) -> None:
    built, written = BUILT[tutorial.name], set[str]()
    for block in blocks_of(tutorial):
        if block.language in WRITTEN:
            assert block.file is not None
            name = block.file.removeprefix(f"{built.example}/")
            text = (built.folder / name).read_text()
            assert text.endswith(block.text) if block.language == "toml" else text == block.text, block.file
            written.add(name)

    modules = {str(path.relative_to(built.folder)) for path in built.folder.rglob("*.py")}
    assert written >= modules
