"""The locks can be installed from any package index, and hold what pyproject.toml asks for."""

import re
from pathlib import Path

import pytest
import tomli
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [Requirement(text) for text in PROJECT["project"]["dependencies"]]

# A pin, an optional marker, its hashes. Comments aside a lock holds nothing else: no option, no URL, no path.
ENTRY = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9a-z.+!]+)"
    r"(?: ; [^\\\n/]+)?"
    r"(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)


def uncommented(lock: Path) -> str:
    return "".join(line for line in lock.read_text().splitlines(keepends=True) if not line.startswith("#"))


def pins(name: str) -> dict[str, Version]:
    """The pinned version of each package of a lock."""
    text = uncommented(ROOT / "requirements" / f"{name}.txt")
    return {entry["name"]: Version(entry["version"]) for entry in ENTRY.finditer(text)}


def lower_bound(requirement: Requirement) -> Version:
    (bound,) = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
    return Version(bound)


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.stem for lock in LOCKS])
def test_a_lock_holds_pins_with_hashes_and_nothing_else(lock: Path) -> None:
    assert ENTRY.sub("", uncommented(lock)) == ""


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.stem for lock in LOCKS])
def test_a_lock_names_no_index_and_no_path_of_a_machine(lock: Path) -> None:
    # Comments too: a tool may write the command it was called by.
    assert not re.search(r"://|index-url|find-links|(^|[\s=\"'])(/|~/|[A-Za-z]:\\)", lock.read_text())


@pytest.mark.parametrize("name", ["run", "dev", "lowest", "previous-sdk"])
def test_a_lock_satisfies_pyproject(name: str) -> None:
    locked = pins(name)

    wrong = [
        f"{dependency}: {locked.get(dependency.name)}"
        for dependency in DEPENDENCIES
        if dependency.name not in locked or locked[dependency.name] not in dependency.specifier
    ]

    assert not wrong, "run `make lock`"


def test_the_lowest_lock_has_the_lower_bounds_themselves() -> None:
    locked = pins("lowest")

    # A release that does not exist, or not for this Python, would make the bound a claim that nobody tried.
    wrong = [
        f"{dependency}: {locked[dependency.name]}"
        for dependency in DEPENDENCIES
        if locked[dependency.name] != lower_bound(dependency)
    ]

    assert not wrong


def test_what_runs_is_what_is_tested() -> None:
    tested = pins("dev")

    assert {name: tested.get(name) for name in pins("run")} == pins("run")


def test_two_majors_of_the_openai_sdk_are_tested() -> None:
    assert pins("dev")["openai"].major - pins("previous-sdk")["openai"].major == 1
