"""`llmproxy plugin new`: what it makes works, whatever the name; it touches nothing that is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmproxy_server.cli import llmproxy as command
from llmproxy_server.cli_plugin_new import skeleton
from tests.llmproxy_server.cli_process import llmproxy


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made is made in the working directory."""
    monkeypatch.chdir(tmp_path)


def plugin_new(name: str) -> Result:
    return CliRunner().invoke(command, ["plugin", "new", name])


def test_it_makes_a_distribution_and_says_how_to_go_on(tmp_path: Path) -> None:
    made = plugin_new("kind-words")

    assert made.exit_code == 0, made.stderr
    assert {path.name for path in (tmp_path / "llmproxy-kind-words").iterdir()} == {
        "README.md",
        "config.toml",
        "llmproxy_kind_words.py",
        "pyproject.toml",
        "test_kind_words.py",
    }
    assert 'pip install -e "llmproxy-kind-words[test]"' in made.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["llmproxy-kind-words"]


def test_no_name_of_the_skeleton_is_left(tmp_path: Path) -> None:
    plugin_new("word_guard_2")

    text = "".join(path.read_text() for path in (tmp_path / "llmproxy-word-guard-2").iterdir())
    assert "processor" in text
    assert not {"my_processor", "my-processor", "MyProcessor", "MY_PROCESSOR"} & set(text.split())
    assert "my_processor" not in text.lower()
    assert "class WordGuard2:" in text
    assert "WORD_GUARD_2 = ProcessorType(" in text


@pytest.mark.parametrize("name", ["shout", "ab", "class", "kind_words", "my_processors"])
@pytest.mark.packaging
def test_what_it_makes_passes_its_own_tests(name: str, tmp_path: Path) -> None:
    plugin_new(name)
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
    refused = plugin_new(name)

    assert refused.exit_code == 2, refused.exception
    assert refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "llmproxy-shout").mkdir()
    (tmp_path / "llmproxy-shout" / "mine").write_text("mine")

    refused = plugin_new("shout")

    assert refused.exit_code == 2
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


def test_the_real_command_gives_the_same_codes_and_no_traceback(tmp_path: Path) -> None:
    made = llmproxy("plugin", "new", "shout", cwd=tmp_path)
    refused = llmproxy("plugin", "new", "Shout", cwd=tmp_path)

    assert (made.code, refused.code) == (0, 2), made.err
    assert "Traceback" not in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["llmproxy-shout"]


def test_the_skeleton_holds_its_own_tests() -> None:
    assert {path for path, _ in skeleton()} >= {"llmproxy_my_processor.py", "test_my_processor.py", "pyproject.toml"}
