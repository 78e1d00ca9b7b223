"""`llmproxy plugin new`: what it makes works, whatever the name; it touches nothing that is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmproxy_server.cli_plugin_new import skeleton


def plugin_new(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmproxy_server", "plugin", "new", name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_makes_a_distribution_and_says_how_to_go_on(tmp_path: Path) -> None:
    made = plugin_new("word-guard", tmp_path)

    assert made.returncode == 0, made.stderr
    assert {path.name for path in (tmp_path / "llmproxy-word-guard").iterdir()} == {
        "README.md",
        "config.toml",
        "llmproxy_word_guard.py",
        "pyproject.toml",
        "test_word_guard.py",
    }
    assert 'pip install -e "llmproxy-word-guard[test]"' in made.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["llmproxy-word-guard"]


def test_no_name_of_the_skeleton_is_left(tmp_path: Path) -> None:
    plugin_new("word_guard_2", tmp_path)

    text = "".join(path.read_text() for path in (tmp_path / "llmproxy-word-guard-2").iterdir())
    assert "processor" in text
    assert not {"my_processor", "my-processor", "MyProcessor", "MY_PROCESSOR"} & set(text.split())
    assert "my_processor" not in text.lower()
    assert "class WordGuard2:" in text
    assert "WORD_GUARD_2 = ProcessorType(" in text


@pytest.mark.parametrize("name", ["shout", "ab", "class", "word_guard", "my_processors"])
@pytest.mark.packaging
def test_what_it_makes_passes_its_own_tests(name: str, tmp_path: Path) -> None:
    plugin_new(name, tmp_path)
    (folder,) = tmp_path.iterdir()

    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("", "Shout", "1st", "a b", "../up", "a__b", "-a", "a-", "x" * 41, "é"),
        *("cache", "cost-limit", "openai_chat"),  # types that there are
        *("core", "server", "openai"),  # modules that there are
        *("none", "operation", "processor_type", "response", "type-error"),  # as classes: None, Operation, …
        *("a", "x2"),  # the class would have the name of its ProcessorType
    ],
)
def test_a_name_that_will_not_do_makes_nothing(name: str, tmp_path: Path) -> None:
    refused = plugin_new(name, tmp_path)

    assert refused.returncode == 2
    assert refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "llmproxy-shout").mkdir()
    (tmp_path / "llmproxy-shout" / "mine").write_text("mine")

    refused = plugin_new("shout", tmp_path)

    assert refused.returncode == 2
    assert "is there already" in refused.stderr
    assert [path.name for path in (tmp_path / "llmproxy-shout").iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A working directory that is gone: root, whom the tests may run as, may write in any that is there."""
    refused = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; os.rmdir(os.getcwd()); from llmproxy_server.cli import main; sys.exit(main())",
            "plugin",
            "new",
            "shout",
        ],
        cwd=_gone(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert refused.returncode == 2, refused.stderr
    assert "cannot be written" in refused.stderr


def _gone(folder: Path) -> Path:
    gone = folder / "gone"
    gone.mkdir()
    return gone


def test_the_skeleton_holds_its_own_tests() -> None:
    assert {path for path, _ in skeleton()} >= {"llmproxy_my_processor.py", "test_my_processor.py", "pyproject.toml"}
