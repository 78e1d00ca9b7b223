"""The command in a process of its own, as a person or a script runs it, and plugins for it to find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

COMMAND = (sys.executable, "-m", "llmproxy_server")
TIMEOUT_S = 30


@attrs.frozen
class Ran:
    """What a finished process left behind."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """This process's environment (cleaned by conftest, coverage's own variables in it), plus *variables*."""
    return dict(os.environ) | {"LANG": "C.UTF-8"} | variables


def llmproxy(
    *arguments: str | Path, cwd: Path, stdin: str = "", command: Sequence[str] = COMMAND, **variables: str
) -> Ran:
    """Run `llmproxy ARGUMENTS` in *cwd* to its end."""
    done = subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def install_plugin(directory: Path, name: str, source: str) -> None:
    """A distribution llmproxy-NAME 1.5 with the module llmproxy_NAME in *directory*, which is to be on the path."""
    module = f"llmproxy_{name}"
    (directory / f"{module}.py").write_text(source)
    information = directory / f"{module}-1.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llmproxy-{name}\nVersion: 1.5\n")
    (information / "entry_points.txt").write_text(f"[llmproxy]\n{name} = {module}\n")
