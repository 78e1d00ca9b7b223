"""One proxy with every provider behind it for all tests of a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.clients.stage import Stage


# Where they are not installed on purpose (`make lowest`) there is nothing to collect; missing by accident is an error.
collect_ignore_glob = ["*python_*", "*node*", "play.py"] if os.environ.get("CLIENTS") == "none" else []


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    # Here, since tests of one client alone need nothing of this.
    from tests.clients.stage import Stage

    with Stage() as running:
        yield running
