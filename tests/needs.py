"""Programs that a test needs and a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def need_program(name: str, *, package: str) -> str:
    """
    The path of the program *name*; without it the test is skipped, and says which of Debian's packages has it.

    Where `CI` is set the test fails instead: there everything is installed, and nothing is left out unnoticed.
    """
    found = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if found is None:
        message = f"{name} is not installed: apt install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
