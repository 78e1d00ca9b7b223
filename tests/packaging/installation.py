"""The wheel in an environment of its own."""

import os
import subprocess
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]

# Making an environment downloads packages where the cache is cold.
INSTALL_TIMEOUT_S = 180


@attrs.frozen
class Installation:
    """The wheel in an environment of its own, run from an empty directory outside the checkout."""

    python: Path
    directory: Path

    @property
    def command(self) -> str:
        """The console command, as a user has it."""
        return str(self.python.with_name("llmproxy"))

    def environment(self, **variables: str) -> dict[str, str]:
        """Environment of a process: what a shell needs, and *variables*; nothing else of this process's."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8"} | variables

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The finished process of *command*, its output as text; it is killed after 30 s."""
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def install(*command: str | Path) -> None:
    """Run *command*, a step of an installation; a failure shows what it said."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
