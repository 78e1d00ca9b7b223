"""The example of a third party, installed beside the wheel in a fresh environment: found, tested there, and at work."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.installation import ROOT, Installation, install
from tests.packaging.test_wheel import free_port, serving

EXAMPLE = ROOT / "docs" / "examples" / "llmproxy-word-guard"

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def example(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An environment with the wheel and the example, and what the example's tests need; in its folder, a copy."""
    import uv  # here, since the environments that run the other tests do without it

    folder = tmp_path_factory.mktemp("third-party") / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    install(uv.find_uv_bin(), "venv", "--quiet", environment)
    python = environment / "bin" / "python"
    pip = (uv.find_uv_bin(), "pip", "install", "--python", python, "--constraint", ROOT / "requirements" / "dev.txt")
    install(*pip, wheel, "hatchling")
    install(*pip, "--no-build-isolation", f"{folder}[test]")
    (folder / "llmproxy_word_guard.py").unlink()  # what is tested is what was installed
    return Installation(python=python, directory=folder)


def test_it_is_found_with_its_distribution(example: Installation) -> None:
    listed = example.run(example.command, "plugins")

    assert "word_guard" in listed.stdout, listed.stderr
    assert "llmproxy-word-guard 0.1.0  llmproxy_word_guard" in listed.stdout
    assert "Every installed plugin could be used." in listed.stdout


def test_its_tests_pass_there(example: Installation) -> None:
    tested = subprocess.run(
        [example.python, "-m", "pytest", "-q"],
        cwd=example.directory,
        env=example.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout


def test_it_guards_a_real_proxy(example: Installation) -> None:
    port = free_port()
    with serving(example, port, "--config", "config.toml"):
        status, said = _ask(port, "Who was Daedalus?")
        free, answered = _ask(port, "Who was Icarus?")

    assert (status, said["error"]["code"]) == (400, "guardrail_blocked")
    assert free == 200
    assert answered["choices"][0]["message"]["content"]


def _ask(port: int, question: str) -> tuple[int, Any]:
    body = {"model": "demo", "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
