"""One proxy with every provider behind it for all tests of a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.clients.stage import Stage


# The matrix of all clients is `make tables`; where they are missing by accident that is an error.
MATRIX = ["*python_*", "*node*", "play.py", "npm.py", "stage.py", "cast.py", "test_agents.py", "test_cast.py"]
collect_ignore_glob = MATRIX if os.environ.get("CLIENTS") == "none" else []


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    # Here, since tests of one client alone need nothing of this.
    from tests.clients.stage import Stage

    with Stage() as running:
        yield running
