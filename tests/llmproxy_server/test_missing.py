"""Without a package with compiled parts nothing is served: the command says which one, and how to install it."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from llmproxy_server.missing import advice
from tests.llmproxy_server.cli_process import Ran, llmproxy

COMPILED = ["httptools", "msgspec", "uvloop"]


def serve(found_first: Path, *arguments: str) -> Ran:
    return llmproxy("serve", "--port", "0", *arguments, cwd=found_first, PYTHONPATH=str(found_first))


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", COMPILED)
def test_one_that_is_not_installed_is_named_with_the_command_that_installs_it(
    name: str, workers: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{name!r}] = None\n")

    ran = serve(tmp_path, "--workers", workers)

    assert ran.code == 2
    said, command = ran.err.splitlines()
    assert said == f"llmproxy: the package {name} is missing, and nothing stands in for it. Install it:"
    assert command.startswith(f"  {sys.executable} -m pip install '{name}>=")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["httptools", "uvloop"])
def test_one_that_does_not_fit_is_named_with_the_reason(name: str, workers: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"of another machine")

    ran = serve(tmp_path, "--workers", workers)

    assert ran.code == 2
    *_, said, command = ran.err.splitlines()
    assert said.startswith(f"llmproxy: the package {name} cannot be loaded by this cpython 3.")
    assert "file too short" in said
    assert command.startswith(f"  {sys.executable} -m pip install --force-reinstall '{name}>=")


def test_a_package_whose_module_has_another_name_is_asked_for_by_its_own() -> None:
    told = advice(ModuleNotFoundError("No module named 'dotenv'", name="dotenv"))

    assert told is not None
    assert "pip install 'python-dotenv>=" in told


@pytest.mark.parametrize("name", [None, "llmproxy_server.nothing", "somebody_elses"])
def test_what_is_no_requirement_of_ours_is_no_matter_of_installing(name: str | None) -> None:
    assert advice(ImportError("cannot import name", name=name)) is None
